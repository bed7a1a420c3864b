package guard

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNameWords is how many words an entry of a dictionary may have.
const maxNameWords = 6

// Dictionary is a list of names that a caller wants found: people, places,
// projects. Names are found as whole words, in any case. A nil Dictionary is
// empty.
type Dictionary struct {
	label map[string]string // by the words in lower case, a space between
	inner map[uint64]bool   // hashes of words that another word of a name follows
	words int               // of the longest name
}

// NewDictionary returns a dictionary of names. The map gives the names for each
// label, such as "PERSON" and "LOCATION".
func NewDictionary(names map[string][]string) (*Dictionary, error) {
	d := &Dictionary{label: map[string]string{}, inner: map[uint64]bool{}}
	for label, list := range names {
		for _, name := range list {
			words := strings.Fields(strings.ToLower(name))
			if len(words) == 0 || len(words) > maxNameWords {
				return nil, fmt.Errorf("guard: a name of label %s has %d words, want 1 to %d", label, len(words), maxNameWords)
			}
			for _, word := range words {
				if strings.IndexFunc(word, func(r rune) bool { return !isNameRune(r) }) >= 0 {
					return nil, fmt.Errorf("guard: a name of label %s has a character other than letters, digits, hyphens, points and apostrophes", label)
				}
			}
			d.label[strings.Join(words, " ")] = label
			d.words = max(d.words, len(words))
			for _, word := range words[:len(words)-1] {
				d.inner[hashWord([]byte(word), 0, len(word))] = true
			}
		}
	}
	return d, nil
}

func isNameRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '\'' || r == '.' || r == '’' || unicode.Is(unicode.M, r)
}

// nameHash is hashWord of word in lower case, in any script.
func nameHash(word []byte) uint64 {
	if isASCII(word) {
		return hashWord(word, 0, len(word))
	}
	word = []byte(strings.ToLower(string(word)))
	return hashWord(word, 0, len(word))
}

// joins reports whether a name may go on behind word.
func (d *Dictionary) joins(word []byte) bool { return d != nil && d.inner[nameHash(word)] }

// readNames records the names of the dictionary in l.
func (l *level) readNames() {
	t, d := l.t, l.zone.det.names
	for i := 0; i < len(t); {
		if !isNameByte[t[i]] {
			i++
			continue
		}
		i = max(l.readName(d, i), wordEnd(t, i))
	}
}

// readName records the longest name that begins with the word at t[i], and
// returns its end, or 0.
func (l *level) readName(d *Dictionary, i int) int {
	t := l.t
	var key []byte
	best, label := 0, ""
	for n, p := 0, i; n < d.words && p < len(t) && isNameByte[t[p]]; n++ {
		end := wordEnd(t, p)
		if n > 0 {
			key = append(key, ' ')
		}
		word := t[p:end]
		for _, trim := range []int{0, 1, 2} { // "Smith." and "Smith's"
			if trim >= len(word) || trim > 0 && word[len(word)-trim] != '.' && word[len(word)-trim] != '\'' {
				continue
			}
			whole := string(append(key, strings.ToLower(string(word[:len(word)-trim]))...))
			found, ok := d.label[whole]
			if !ok {
				found, ok = d.label[asWords.Replace(whole)]
			}
			if ok {
				best, label = end-trim, found
				break
			}
		}
		key = append(key, strings.ToLower(string(word))...)
		p = end
		for p < len(t) && p-end < 2 && (isSpace(t[p]) || t[p] == '_') {
			p++
		}
		if p == end {
			break
		}
	}
	if best > 0 {
		l.add(l.zone.det.nameOf[label], i, best, 0.85)
	}
	return best
}

// asWords makes words of the parts of an identifier, as in "anna.kowalska".
var asWords = strings.NewReplacer(".", " ", "-", " ")

func wordEnd(t []byte, p int) int {
	for p < len(t) && isNameByte[t[p]] {
		p++
	}
	return p
}

// isNameByte marks what isNameRune allows.
var isNameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || c == '-' || c == '\'' || c == '.' || c >= utf8.RuneSelf
	}
	return t
}()
