package guard

import "strings"

// mask is a set of recognizers whose context words were seen.
type mask [3]uint64

func (m *mask) add(bit int)      { m[bit>>6] |= 1 << (bit & 63) }
func (m *mask) has(bit int) bool { return bit >= 0 && m[bit>>6]&(1<<(bit&63)) != 0 }

func (m *mask) union(o mask) {
	for i := range m {
		m[i] |= o[i]
	}
}

// wordIndex tells which recognizers a word is context of.
type wordIndex map[uint64]mask

func (w wordIndex) add(words string, bit int) {
	for word := range strings.FieldsSeq(words) {
		h := hashWord([]byte(word))
		m := w[h]
		m.add(bit)
		w[h] = m
	}
}

const (
	hashSeed  = 14695981039346656037
	hashPrime = 1099511628211
)

// hashWord is FNV-1a over the word in lower case.
func hashWord(word []byte) uint64 {
	h := uint64(hashSeed)
	for _, c := range word {
		h = (h ^ uint64(lower(c))) * hashPrime
	}
	return h
}

const (
	// contextBytes and contextWords bound how far before a candidate words count.
	contextBytes = 110
	contextWords = 14
)

// before returns what the words at the end of b are context of. Letters that
// touch the end count as words if they end with one. Of compound names, such as
// userPhoneNumber and birth_date, the parts and the whole count.
func (w wordIndex) before(b []byte) (m mask) {
	low := max(0, len(b)-contextBytes)
	lines := 0
	for i, n := len(b), 0; i > low && n < contextWords; n++ {
		for i > low && !isContextByte[b[i-1]] {
			if b[i-1] == '\n' {
				if lines++; lines > 1 {
					return m
				}
			}
			i--
		}
		end := i
		for i > low && isContextByte[b[i-1]] {
			i--
		}
		if i < end {
			m.union(w[hashWord(b[i:end])])
			w.parts(b[i:end], &m)
		}
	}
	return m
}

// parts adds the parts of a name in camel case.
func (w wordIndex) parts(word []byte, m *mask) {
	start := 0
	for i := 1; i < len(word); i++ {
		if isUpper(word[i]) && !isUpper(word[i-1]) {
			m.union(w[hashWord(word[start:i])])
			start = i
		}
	}
	if start > 0 {
		m.union(w[hashWord(word[start:])])
	}
}

// within adds what any part of word, of three letters or more, is context of.
// It is for words that are glued to a number.
func (w wordIndex) within(word []byte, m *mask) {
	word = word[max(0, len(word)-32):]
	for i := range word {
		for j := i + 3; j <= len(word); j++ {
			m.union(w[hashWord(word[i:j])])
		}
	}
}

var isContextByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isLetter(byte(c)) || c >= 0x80
	}
	return t
}()
