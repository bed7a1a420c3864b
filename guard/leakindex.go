package guard

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// How the alignment of a text with a prompt is scored. A word that is rare
// counts 1. The figures were chosen on generated prompts; see leak_test.go.
const (
	reach     = 6    // words of the prompt or of the text that may be skipped at once
	skipCost  = 0.25 // for each of them
	enough    = 6.5  // the score of a leak
	atLeast   = 2.0  // of a short prompt
	share     = 0.4  // of the weight of a short prompt that is enough
	nearlyAll = 0.9  // of the weight of a prompt that says next to nothing
	gram      = 14   // letters that must agree when word breaks are ignored; so many are enough of a canary
	maxPlaces = 32   // of one word in the prompts that are looked at

	filterShift = 64 - 18
)

// index is what the prompts look like to a scan. All prompts lie behind one
// another on a line, each followed by its variants: in rot13, reversed, and by the
// steps between its letters.
// A spot is a word on that line, and its place is its number.
type index struct {
	seed   maphash.Seed
	places []spot
	words  map[uint64][]int32 // hash of a word -> places
	// The same by letters, for texts whose word breaks cannot be trusted.
	letters []letter
	grams   map[uint64][]int32 // hash of the gram that ends at a letter
	prompts []prompt
	// filter has a bit for the top bits of each gram, because most are in no prompt.
	filter  [1 << (64 - filterShift) / 64]uint64
	scratch sync.Pool // of *scratch
}

type prompt struct {
	name   string
	enough float32
}

type spot struct {
	prompt int32
	worth
	opens bool // it is one of the first words: even a common one begins an alignment
}

type letter struct {
	prompt int32
	weight float32 // of its word in a run, divided among its letters
}

func newIndex(sources []source) (*index, error) {
	x := &index{seed: maphash.MakeSeed(), words: map[uint64][]int32{}, grams: map[uint64][]int32{}}
	w := newWeigher()
	for i, s := range sources {
		l := plain(&layer{text: []byte(s.text)})
		if bare, _ := untagged(l); bare != nil {
			l = bare
		}
		words := splitWords(l)
		worths, total, err := w.weigh(words, s.name)
		if err != nil {
			return nil, err
		}
		needs := needed(total)
		scale := needs / enough // of a short prompt, too, eight in a row are enough, and not fewer
		if needs == total*nearlyAll {
			scale = 0 // it takes nearly all of it
		}
		for k := range worths {
			worths[k].inRun = max(worths[k].alone, worths[k].inRun*scale)
		}
		x.prompts = append(x.prompts, prompt{s.name, needs})
		x.add(int32(i), l.text, words, worths)
		if s.canary != "" {
			mark := squeeze(s.canary)
			tells := enough * float32(len(mark)) / gram
			x.add(int32(i), []byte(mark), []word{{mark, 0, len(mark)}}, []worth{{tells, tells}})
		}
	}
	x.scratch.New = func() any { return newScratch(x) }
	return x, nil
}

// needed returns the score of a leak of a prompt whose words weigh total.
func needed(total float32) float32 {
	return min(enough, max(atLeast, total*share), total*nearlyAll)
}

func (x *index) addWords(prompt int32, words []string, worths []worth) {
	for i, word := range words {
		h := maphash.String(x.seed, word)
		if len(x.words[h]) < maxPlaces {
			x.words[h] = append(x.words[h], int32(len(x.places)))
		}
		x.places = append(x.places, spot{prompt, worths[i], i < 3})
	}
	for range reach + 1 { // so that nothing aligns across the end
		x.places = append(x.places, spot{prompt: -1})
	}
}

// addLetters adds all letters of a prompt, those that are in no word included.
func (x *index) addLetters(prompt int32, runes []rune, weights []float32) {
	var roll roller
	for i, r := range runes {
		x.letters = append(x.letters, letter{prompt, weights[i]})
		if h, ok := roll.next(r); ok && len(x.grams[h]) < maxPlaces {
			x.grams[h] = append(x.grams[h], int32(len(x.letters)-1))
			x.filter[h>>filterShift/64] |= 1 << (h >> filterShift % 64)
		}
	}
	x.letters = append(x.letters, letter{prompt: -1})
}

// add adds the words of text, forward and in the ways of writing them that no
// decoding undoes.
func (x *index) add(prompt int32, text []byte, words []word, worths []worth) {
	forward := make([]string, len(words))
	for i, w := range words {
		forward[i] = w.text
	}
	back := reversed(worths)
	x.addWords(prompt, forward, worths)
	x.addWords(prompt, each(forward, rot13), worths)
	x.addWords(prompt, reversed(forward), back)
	mirrored := each(forward, func(s string) string { return string(reversed([]rune(s))) })
	x.addWords(prompt, mirrored, worths)
	x.addWords(prompt, reversed(mirrored), back)

	pig := each(forward, pigLatin)
	x.addWords(prompt, pig, worths)
	bare := each(forward, unvoiced)
	x.addWords(prompt, bare, worths)

	runes, share := letters(text, words, worths)
	x.addLetters(prompt, runes, share)
	for _, list := range [...][]string{pig, bare} {
		x.addJoined(prompt, list, worths)
	}
	x.addLetters(prompt, []rune(rot13(string(runes))), share)
	x.addLetters(prompt, reversed(runes), reversed(share))
	x.addSteps(prompt, runes, share)
}

// addJoined adds the letters of words that were changed.
func (x *index) addJoined(prompt int32, words []string, worths []worth) {
	var runes []rune
	var share []float32
	for i, w := range words {
		for _, r := range w {
			runes, share = append(runes, r), append(share, worths[i].ofLetter(w))
		}
	}
	x.addLetters(prompt, runes, share)
}

// pigLatin puts what is before the first vowel of a word behind it, and ay behind that.
func pigLatin(word string) string {
	switch i := strings.IndexAny(word, "aeiouy"); {
	case i == 0 && word[0] != 'y':
		return word + "way"
	case i < 0:
		return word + "ay"
	default:
		i = max(i, 1)
		return word[i:] + word[:i] + "ay"
	}
}

// unvoiced leaves the vowels of a word out.
func unvoiced(word string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case 'a', 'e', 'i', 'o', 'u':
			return -1
		}
		return r
	}, word)
}

// addSteps adds how far each letter is behind the one before, and the same for an
// alphabet that runs backwards, as in Atbash.
func (x *index) addSteps(prompt int32, runes []rune, weights []float32) {
	var steps, mirrored []rune
	var kept []float32
	before := rune(0)
	for i, r := range runes {
		if r >= 'a' && r <= 'z' {
			steps, mirrored, kept = append(steps, stride(before, r)), append(mirrored, stride(r, before)), append(kept, weights[i])
			before = r
		}
	}
	x.addLetters(prompt, steps, kept)
	x.addLetters(prompt, mirrored, kept)
}

// stride returns how far r is behind the letter before it in the alphabet, which
// has no end, in capitals: they are in no text that was folded.
func stride(before, r rune) rune { return 'A' + (r-before+4*26)%26 }

// ofLetter is what each letter of word is worth: only runs of them count.
func (w worth) ofLetter(word string) float32 {
	return w.inRun / float32(utf8.RuneCountInString(word))
}

// letters returns the letters and digits of text, and for each the share of
// its word's weight.
func letters(text []byte, words []word, worths []worth) (runes []rune, share []float32) {
	for i, r := range string(text) {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			continue
		}
		for len(words) > 0 && words[0].end <= i {
			words, worths = words[1:], worths[1:]
		}
		weight := float32(0)
		if len(words) > 0 && words[0].start <= i {
			weight = worths[0].ofLetter(words[0].text)
		}
		runes, share = append(runes, unicode.ToLower(r)), append(share, weight)
	}
	return runes, share
}

func each(list []string, f func(string) string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = f(s)
	}
	return out
}

func rot13(s string) string { return strings.Map(rotate, s) }

func rotate(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return 'a' + (r-'a'+13)%26
	}
	if r >= 'A' && r <= 'Z' {
		return 'A' + (r-'A'+13)%26
	}
	return r
}

func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
