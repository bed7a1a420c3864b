package guard

import (
	"slices"
	"unicode"
	"unicode/utf8"
)

// InternalTags are those that gateways and chat templates put around what is
// not for the user, and that no answer needs. They are always looked for.
func InternalTags() []string {
	return []string{
		"internal", "system", "system_prompt", "system_instructions", "user_query", "user_input", "untrusted_input",
		"tool_result", "tool_results", "function_calls", "function_results", "thinking", "scratchpad",
	}
}

// tagSet finds tags by name, in any spelling.
type tagSet struct{ names [][]rune } // letters and digits, in lower case

func newTagSet(names []string) tagSet {
	var t tagSet
	for _, name := range names {
		if letters := []rune(squeeze(name)); len(letters) > 0 {
			t.names = append(t.names, letters)
		}
	}
	return t
}

// How much may stand inside a tag, in bytes of a layer.
const (
	tagGap  = 8   // between two letters of its name, other tags apart
	tagRest = 512 // between its name and what closes it
)

// find calls f with where each tag of text begins and ends, from left to right.
// A tag that is never closed ends after its name. It returns where the first
// tag begins that more text could make or prolong; len(text) if there is none.
//
// It reads brackets from the last to the first, so that when a tag may have
// others in its name, it is known already where those end, and the time is
// linear.
func (t tagSet) find(text []byte, f func(start, end int)) (open int) {
	var brackets []int
	for i := 0; i < len(text); {
		n := opens(text[i:])
		if n > 0 {
			brackets = append(brackets, i)
		}
		i += max(n, 1)
	}
	open = len(text)
	ends := make(map[int]int, len(brackets)) // of tags, by where they begin
	for _, i := range slices.Backward(brackets) {
		for _, name := range t.names {
			end, grows := match(text, i+opens(text[i:]), name, ends)
			if end > ends[i] {
				ends[i] = end
			}
			if grows {
				open = i
			}
		}
	}
	done := 0
	for _, i := range brackets {
		if end := ends[i]; end > 0 && i >= done {
			f(i, end)
			done = end
		}
	}
	return open
}

// match returns the end of the tag of that name whose bracket is just before
// i, or 0; and whether more text could change that.
func match(text []byte, i int, name []rune, ends map[int]int) (end int, grows bool) {
	for _, want := range name {
		if i = nextLetter(text, i, ends); i < 0 {
			return 0, false
		}
		if i == len(text) {
			return 0, true
		}
		r, n := utf8.DecodeRune(text[i:])
		if unicode.ToLower(r) != want {
			return 0, false
		}
		i += n
	}
	if r, n := utf8.DecodeRune(text[i:]); n > 0 && (r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)) {
		return 0, false // a longer name
	}
	j := i
	for ; j < len(text) && j-i < tagRest; j++ {
		if n := closes(text[j:]); n > 0 {
			return j + n, false
		}
		if opens(text[j:]) > 0 {
			return i, false
		}
	}
	return i, j == len(text)
}

// nextLetter skips what may stand between the letters of a name, other tags of
// the set included: without them the rest would become the tag. It returns -1
// if something else stands there, and len(text) if the text ends.
func nextLetter(text []byte, i int, ends map[int]int) int {
	for gap := 0; i < len(text) && gap <= tagGap; gap++ {
		if end := ends[i]; end > 0 {
			i, gap = end, 0
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case opens(text[i:]) > 0, closes(text[i:]) > 0:
			return -1
		case unicode.IsLetter(r), unicode.IsDigit(r):
			return i
		}
		i += n
	}
	if i >= len(text) {
		return len(text)
	}
	return -1
}

// opens returns the length of what is read as < at the start of text, or 0.
// A view leaves these look-alikes as they are.
func opens(text []byte) int { return oneOf(text, '<', "‹〈⟨❮❰˂ᐸ《«") }

func closes(text []byte) int { return oneOf(text, '>', "›〉⟩❯❱˃ᐳ》»") }

func oneOf(text []byte, plain byte, others string) int {
	if len(text) == 0 {
		return 0
	}
	if text[0] < utf8.RuneSelf {
		if text[0] == plain {
			return 1
		}
		return 0
	}
	r, n := utf8.DecodeRune(text)
	for _, other := range others {
		if r == other {
			return n
		}
	}
	return 0
}
