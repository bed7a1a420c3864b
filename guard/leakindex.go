package guard

import (
	"hash/maphash"
	"strings"
	"sync"
	"unicode/utf8"
)

// How the alignment of a text with a prompt is scored. A word that is rare
// counts 1. The figures were chosen on generated prompts; see leak_test.go.
const (
	reach     = 6    // words of the prompt or of the text that may be skipped at once
	skipCost  = 0.25 // for each of them
	enough    = 5.5  // the score of a leak
	atLeast   = 2.0  // of a short prompt
	share     = 0.5  // of the weight of a short prompt that is enough
	gram      = 14   // letters that must agree when word breaks are ignored; so many are enough of a canary
	maxPlaces = 32   // of one word in the prompts that are looked at
)

// index is what the prompts look like to a scan. All prompts lie behind one
// another on a line, each followed by its variants: in rot13, and reversed.
// A place is a word on that line.
type index struct {
	seed   maphash.Seed
	places []place
	words  map[uint64][]int32 // hash of a word -> places
	// The same by letters, for texts whose word breaks cannot be trusted.
	letters []letter
	grams   map[uint64][]int32 // hash of the gram that ends at a letter
	prompts []prompt
	scratch sync.Pool // of *scratch
}

type prompt struct {
	name   string
	enough float32
}

type place struct {
	prompt int32
	weight float32
}

type letter struct {
	prompt int32
	weight float32 // of its word, divided among its letters
}

func newIndex(sources []source) (*index, error) {
	x := &index{seed: maphash.MakeSeed(), words: map[uint64][]int32{}, grams: map[uint64][]int32{}}
	w := newWeigher()
	for i, s := range sources {
		l := &layer{}
		plain(l, []byte(s.text), nil)
		words := splitWords(l)
		weights, total, err := w.weigh(words, s.name)
		if err != nil {
			return nil, err
		}
		x.prompts = append(x.prompts, prompt{s.name, min(enough, max(atLeast, total*share))})
		for _, v := range variants(words, weights) {
			x.addWords(int32(i), v)
			if v.byLetter {
				x.addLetters(int32(i), v)
			}
		}
		if s.canary != "" {
			mark := squeeze(s.canary)
			for _, v := range variants([]word{{text: mark}}, []float32{enough * float32(len(mark)) / gram}) {
				x.addWords(int32(i), v)
				x.addLetters(int32(i), v)
			}
		}
	}
	x.scratch.New = func() any { return newScratch(x) }
	return x, nil
}

func (x *index) addWords(prompt int32, v variant) {
	for i, word := range v.words {
		h := maphash.String(x.seed, word)
		if len(x.words[h]) < maxPlaces {
			x.words[h] = append(x.words[h], int32(len(x.places)))
		}
		x.places = append(x.places, place{prompt, v.weights[i]})
	}
	for range reach + 1 { // so that nothing aligns across the end
		x.places = append(x.places, place{prompt: -1})
	}
}

func (x *index) addLetters(prompt int32, v variant) {
	var roll roller
	for i, word := range v.words {
		each := v.weights[i] / float32(utf8.RuneCountInString(word))
		for _, r := range word {
			x.letters = append(x.letters, letter{prompt, each})
			if h, ok := roll.next(r); ok && len(x.grams[h]) < maxPlaces {
				x.grams[h] = append(x.grams[h], int32(len(x.letters)-1))
			}
		}
	}
	x.letters = append(x.letters, letter{prompt: -1})
}

type variant struct {
	words    []string
	weights  []float32
	byLetter bool
}

// variants returns the ways of writing words that no decoding undoes.
func variants(words []word, weights []float32) []variant {
	n := len(words)
	forward := variant{make([]string, n), weights, true}
	rot13 := variant{make([]string, n), weights, true}
	back := variant{make([]string, n), make([]float32, n), true}
	order := variant{make([]string, n), make([]float32, n), false}
	for i, w := range words {
		forward.words[i] = w.text
		rot13.words[i] = strings.Map(rotate, w.text)
		back.words[n-1-i], back.weights[n-1-i] = reverse(w.text), weights[i]
		order.words[n-1-i], order.weights[n-1-i] = w.text, weights[i]
	}
	return []variant{forward, rot13, back, order}
}

func rotate(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return 'a' + (r-'a'+13)%26
	}
	return r
}

func reverse(s string) string {
	runes := []rune(s)
	for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
		runes[i], runes[j] = runes[j], runes[i]
	}
	return string(runes)
}
