package guard

import (
	"fmt"
	"math/bits"
	"strings"
)

// recognizer describes identifiers of one kind: how they are written, what
// proves them, and what is said around them.
type recognizer struct {
	label string
	// forms are the ways to write it, with | between them. In a form, d is a
	// digit, a a letter, x either; capital letters and digits are themselves;
	// {m,n} repeats what is before it. Between groups, - is any separator, the
	// same in the whole form; ~ is any separator; a space, a point, a slash or
	// a colon or a plus sign is itself, and = is a hyphen. ? is a separator that is there
	// everywhere or nowhere, and ^ any or none.
	forms string
	// check, if not nil, is given the letters, in upper case, and digits without
	// separators, and reports whether they are sound.
	check func([]byte) bool
	// score is how sure a match is, from 0 to 1; with, if one of words is before it.
	score, with float32
	words       string
	// glued allows letters directly in front of a form, as in "SSN219-09-9999".
	// All-digit forms have it anyway.
	glued bool
	// capitals says that the letters of a form must be capitals.
	capitals bool
	// runsOn says that what follows without white space belongs to a finding
	// that was too long for a window.
	runsOn bool
	// For one with a matcher of its own: whether it has a check, and the best
	// scores that the matcher gives.
	checked        bool
	best, bestWith float32
	bit            int // of words in a mask, or -1
	topic          int // its priority among equals: the place in the table
}

// form is one way to write an identifier.
type form struct {
	rec     *recognizer
	chars   string // classes and literals, without separators
	gaps    []gap
	letters uint64 // places that must be letters, a bit each
	digits  uint64 // places that must be digits
	literal bool   // chars has literals
	numeric bool   // digits alone
}

// entry is a form in the index, with the part of it that refuses most first.
type entry struct {
	letters, digits uint64
	form            *form
}

// gap is what separates two groups of a form.
type gap struct {
	at   int  // characters before it
	kind byte // as in a form
}

const (
	maxGroups   = 9
	groupBits   = 6
	maxFormSize = 40
)

// formKey identifies the lengths of groups.
func formKey(key uint64, size int) uint64 { return key<<groupBits | uint64(size) }

// compileForms adds the forms of r to the index.
func compileForms(r *recognizer, index map[uint64][]entry) error {
	for text := range strings.SplitSeq(r.forms, "|") {
		for _, one := range expand(text) {
			f := &form{rec: r}
			key, size := uint64(0), 0
			var chars strings.Builder
			for i := range len(one) {
				c := one[i]
				if strings.IndexByte("-~ ./:+=", c) >= 0 {
					f.gaps = append(f.gaps, gap{at: chars.Len(), kind: c})
					key, size = formKey(key, size), 0
					continue
				}
				place := uint64(1) << chars.Len()
				switch {
				case c == 'd':
					f.digits |= place
				case c == 'a':
					f.letters |= place
				case c == 'x':
				case isDigit(c):
					f.digits |= place
					f.literal = true
				case isUpper(c):
					f.letters |= place
					f.literal = true
				default:
					return fmt.Errorf("guard: form %q of %s has %q", text, r.label, c)
				}
				chars.WriteByte(c)
				size++
			}
			f.chars = chars.String()
			f.numeric = bits.OnesCount64(f.digits) == len(f.chars)
			key = formKey(key, size)
			index[key] = append(index[key], entry{f.letters, f.digits, f})
		}
	}
	return nil
}

// expand replaces {m,n} and ? by all that they stand for.
func expand(text string) []string {
	if open := strings.IndexByte(text, '{'); open > 0 {
		end := open + strings.IndexByte(text[open:], '}')
		var low, high int
		if n, _ := fmt.Sscanf(text[open:end+1], "{%d,%d}", &low, &high); n == 1 {
			high = low
		}
		var all []string
		for n := low; n <= high; n++ {
			all = append(all, expand(text[:open-1]+strings.Repeat(text[open-1:open], n)+text[end+1:])...)
		}
		return all
	}
	if before, after, ok := strings.Cut(text, "^"); ok {
		return append(expand(before+after), expand(before+"~"+after)...)
	}
	if strings.Contains(text, "?") {
		return []string{strings.ReplaceAll(text, "?", ""), strings.ReplaceAll(text, "?", "-")}
	}
	return []string{text}
}

// matches reports whether f fits characters c, which are in upper case and have
// letters where it wants them; gs are the groups that they are of.
func (f *form) matches(c []byte, gs []group) bool {
	if f.literal {
		for i := range len(f.chars) {
			if k := f.chars[i]; k < 'a' && k != c[i] {
				return false
			}
		}
	}
	same := byte(0)
	for i, g := range f.gaps {
		switch g.kind {
		case '~':
		case '-':
			if same != 0 && same != gs[i].sep {
				return false
			}
			same = gs[i].sep
		case '=':
			if gs[i].sep != '-' {
				return false
			}
		default:
			if gs[i].sep != g.kind {
				return false
			}
		}
	}
	return true
}
