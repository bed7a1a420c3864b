package guard

import (
	"slices"
	"strings"
)

// formIndex finds forms by the lengths of their groups. It is asked for every
// number in a text, and nearly always has nothing: filters come first.
type formIndex struct {
	single  [maxFormSize + 1][]entry // of one group, by its length
	numbers [maxFormSize + 1][]entry // those of them that fit digits alone
	goesOn  [maxFormSize + 1]bool    // whether one of several groups begins with such a one
	filter  [64]uint64               // a bit for each hash of a key
	starts  [64]uint64               // and of the groups that a form may begin with
	// What a form may begin with, by how many digits and letters: a word and a number, a
	// number and a word, and a number with letters right behind it; and whether letters
	// and digits right behind them are one.
	wordNumber, numberWord, suffixed, prefixed [maxPlain][maxPlain]bool
	words                                      []string   // that forms begin with, in lower case
	slots                                      []formSlot // by hash, with linear probing; a power of two
}

// maxPlain bounds the words and numbers that are asked about.
const maxPlain = 8

type formSlot struct {
	key   uint64
	forms []entry
}

// build fills x with forms by their keys.
func (x *formIndex) build(forms map[uint64][]entry) {
	for _, list := range forms {
		for _, e := range list {
			x.begin(e.form)
		}
	}
	size := 1
	for size < 4*len(forms) {
		size *= 2
	}
	x.slots = make([]formSlot, size)
	for key, list := range forms {
		if key <= maxFormSize {
			x.single[key] = list
			for _, e := range list {
				if e.letters == 0 {
					x.numbers[key] = append(x.numbers[key], e)
				}
			}
		}
		h := keyHash(key)
		x.filter[h>>6&63] |= 1 << (h & 63)
		for start := key; start > 0; start >>= groupBits {
			h := keyHash(start)
			x.starts[h>>6&63] |= 1 << (h & 63)
			if start <= maxFormSize && start != key {
				x.goesOn[start] = true
			}
		}
		at := h & uint64(size-1)
		for x.slots[at].forms != nil {
			at = (at + 1) & uint64(size-1)
		}
		x.slots[at] = formSlot{key, list}
	}
}

// begin records what f begins with.
func (x *formIndex) begin(f *form) {
	may := func(from, to int, not uint64) bool { return not>>from&(1<<(to-from)-1) == 0 }
	first, second := len(f.chars), len(f.chars)
	if len(f.gaps) > 0 {
		first = f.gaps[0].at
	}
	if len(f.gaps) > 1 {
		second = f.gaps[1].at
	}
	for n := 1; n < first && n < maxPlain && first-n < maxPlain; n++ {
		if may(0, n, f.letters) && may(n, first, f.digits) {
			x.suffixed[n][first-n] = true
		}
		if len(f.gaps) == 0 && may(0, n, f.digits) && may(n, first, f.letters) {
			x.prefixed[n][first-n] = true
		}
	}
	literal := strings.ToUpper(f.chars[:first]) == f.chars[:first] && may(0, first, f.digits)
	if word := strings.ToLower(f.chars[:first]); literal && !slices.Contains(x.words, word) {
		x.words = append(x.words, word)
	}
	if n, m := first, second-first; m > 0 && n < maxPlain && m < maxPlain {
		x.wordNumber[n][m] = x.wordNumber[n][m] || !literal && may(0, first, f.digits) && may(first, second, f.letters)
		x.numberWord[n][m] = x.numberWord[n][m] || may(0, first, f.letters) && may(first, second, f.digits)
	}
}

func keyHash(key uint64) uint64 { return key * 0x9E3779B97F4A7C15 >> 52 }

// find returns the forms with key.
func (x *formIndex) find(key uint64) []entry {
	h := keyHash(key)
	if x.filter[h>>6&63]&(1<<(h&63)) == 0 {
		return nil
	}
	last := uint64(len(x.slots) - 1)
	for at := h & last; x.slots[at].forms != nil; at = (at + 1) & last {
		if x.slots[at].key == key {
			return x.slots[at].forms
		}
	}
	return nil
}

// joins reports whether a form may begin with word and a number of so many digits.
func (x *formIndex) joins(word []byte, digits int) bool {
	return len(word) >= maxPlain || digits >= maxPlain || x.wordNumber[len(word)][digits] || isWordOf(word, x.words...)
}

// ofNumbers reports whether there is a form of two numbers of these lengths.
func (x *formIndex) ofNumbers(first, second int) bool {
	for _, e := range x.find(formKey(uint64(first), second)) {
		if e.letters == 0 {
			return true
		}
	}
	return false
}

// mayStart reports whether there may be forms that begin with these groups.
func (x *formIndex) mayStart(key uint64) bool {
	h := keyHash(key)
	return x.starts[h>>6&63]&(1<<(h&63)) != 0
}
