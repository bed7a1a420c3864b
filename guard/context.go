package guard

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

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
type wordIndex struct {
	slots  []wordSlot // by hash, with linear probing; a power of two
	used   int
	filter [256]uint64 // a bit for each hash, because most words are in no slot
	// shapes has, for the first and the last letter of a word, a bit for each
	// length that there is: most words need no hash.
	shapes [1024]uint32
}

type wordSlot struct {
	hash uint64 // 0: none
	mask mask
}

// shape returns the place of word, which is not empty, in shapes, and its bit.
func shape(word []byte) (place int, bit uint32) {
	return int(word[0]&31)<<5 | int(word[len(word)-1]&31), 1 << min(len(word), 31)
}

// add makes each of words, with spaces between, context of bit.
func (w *wordIndex) add(words string, bit int) {
	for word := range strings.FieldsSeq(words) {
		word = strings.TrimSuffix(word, "ー") // a hyphen in a view
		h := hashWord([]byte(word), 0, len(word))
		w.slot(h).mask.add(bit)
		w.filter[h>>6&255] |= 1 << (h & 63)
		place, bit := shape([]byte(word))
		w.shapes[place] |= bit
	}
}

// slot returns the slot of hash h, and makes it if there is none.
func (w *wordIndex) slot(h uint64) *wordSlot {
	if s := w.find(h); s != nil {
		return s
	}
	if 2*w.used >= len(w.slots) {
		old := w.slots
		w.slots, w.used = make([]wordSlot, max(1024, 2*len(old))), 0
		for _, s := range old {
			if s.hash != 0 {
				*w.slot(s.hash) = s
			}
		}
	}
	w.used++
	last := uint64(len(w.slots) - 1)
	at := h & last
	for w.slots[at].hash != 0 {
		at = (at + 1) & last
	}
	w.slots[at].hash = h
	return &w.slots[at]
}

// find returns the slot of hash h, or nil.
func (w *wordIndex) find(h uint64) *wordSlot {
	last := uint64(len(w.slots) - 1)
	for at := h & last; at < uint64(len(w.slots)) && w.slots[at].hash != 0; at = (at + 1) & last {
		if w.slots[at].hash == h {
			return &w.slots[at]
		}
	}
	return nil
}

// lookWord adds what the word b[start:end], which is not empty, is context of.
func (w *wordIndex) lookWord(b []byte, start, end int, m *mask) {
	if place, bit := shape(b[start:end]); w.shapes[place]&bit != 0 {
		w.look(hashWord(b, start, end), m)
	}
}

// look adds what the word with hash h is context of.
func (w *wordIndex) look(h uint64, m *mask) {
	if w.filter[h>>6&255]&(1<<(h&63)) != 0 {
		if s := w.find(h); s != nil {
			m.union(s.mask)
		}
	}
}

// hashWord is a hash of the word b[start:end] in lower case.
func hashWord(b []byte, start, end int) uint64 {
	h := uint64(0)
	for i := start; i < end; i += 8 {
		w := lowerOf(eightOf(b, i))
		if end-i < 8 {
			w &= 1<<(8*(end-i)) - 1
		}
		h = (h ^ w) * 0x9E3779B185EBCA87
		h ^= h >> 32
	}
	return h
}

const (
	// contextBytes and contextWords bound how far before a candidate words count.
	contextBytes = 72
	contextWords = 9
)

// before returns what the words at the end of b are context of. Of compound
// names, such as userPhoneNumber and birth_date, the parts and the whole count.
func (w *wordIndex) before(b []byte) (m mask) {
	low := max(0, len(b)-contextBytes)
	i, n, lines := len(b), 0, 0
	if at := len(b) - 64; at >= 0 {
		// The last 64 bytes as masks, because a branch for each byte is slow.
		text := b[at:]
		var letters, capitals, small, breaks uint64
		for k := 56; k >= 0; k -= 8 {
			l, c, s, n := lettersIn(binary.LittleEndian.Uint64(text[k:]))
			letters, capitals, small, breaks = letters<<8|l, capitals<<8|c, small<<8|s, breaks<<8|n
		}
		capitals &= small << 1 // those behind a small letter
		for ; n < contextWords; n++ {
			rest := uint64(1)<<(i-at) - 1
			end := bits.Len64(letters & rest)
			if lines += bits.OnesCount64(breaks & rest >> end); lines > 1 {
				return m
			}
			i = at + end
			start := bits.Len64(^letters & (1<<end - 1))
			if start == 0 {
				break // it may begin before these 64 bytes
			}
			i = at + start
			if end-start > 1 {
				w.lookWord(text, start, end, &m)
				if capitals&(1<<end-1)>>(start+1) != 0 {
					w.parts(text[start:end], &m)
				}
			}
		}
	}
	for ; i > low && n < contextWords; n++ {
		for i > low && !isContextByte[b[i-1]] {
			if b[i-1] == '\n' {
				if lines++; lines > 1 {
					return m
				}
			}
			i--
		}
		end, capitals := i, false
		for i > low && isContextByte[b[i-1]] {
			i--
			capitals = capitals || i > low && isUpper(b[i]) && isLower(b[i-1])
		}
		if end-i > 1 {
			w.lookWord(b, i, end, &m)
			if capitals {
				w.parts(b[i:end], &m)
			}
		}
	}
	return m
}

// lettersIn returns, with a bit for each byte of w, which are letters or of a
// character that is not ASCII, capitals, small letters, and line feeds.
func lettersIn(w uint64) (letters, capitals, small, breaks uint64) {
	letter, _ := alnumsIn(w)
	isSmall := letter & (w << 2)
	feed := ^((w&^highBits ^ '\n'*oneEach) + 0x7F*oneEach | w) & highBits
	return bitsOf(letter | w&highBits), bitsOf(letter &^ isSmall), bitsOf(isSmall), bitsOf(feed)
}

// parts adds the parts of a name in camel case.
func (w *wordIndex) parts(word []byte, m *mask) {
	start := 0
	for i := 1; i < len(word); i++ {
		if isUpper(word[i]) && !isUpper(word[i-1]) {
			w.lookWord(word, start, i, m)
			start = i
		}
	}
	w.lookWord(word, start, len(word), m)
}

// within adds what any part of word, of three letters or more, is context of.
// It is for words that are glued to a number.
func (w *wordIndex) within(word []byte, m *mask) {
	word = word[max(0, len(word)-32):]
	for i := range word {
		for end := i + 3; end <= len(word); end++ {
			w.lookWord(word, i, end, m)
		}
	}
}

var isContextByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isLetter(byte(c)) || c >= 0x80
	}
	return t
}()
