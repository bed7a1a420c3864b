package guard

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// An InputPolicy says which inputs of a user go on to a model.
//
// The rules on length and characters block. The rules on what a text says,
// which look for injected instructions, are advisory: they fire on discussions
// of such attacks too, and anybody can word one that they do not know. They are
// a reason to look, or to offer the model fewer tools, and no fence; that is
// what [Delimiters] are for.
type InputPolicy struct {
	MaxChars int      // the longest input in code points; 0: 100,000
	Block    []string // advisory rules that block nevertheless, or "all"
}

// An InputReport says whether an input may go on, and which rules fired.
type InputReport struct {
	Allow bool
	Rules []string // names, in the order of InputRules
}

// An InputRule is one that an input may break.
type InputRule struct {
	Name, About string
	Advisory    bool // it blocks only if the policy says so
}

// InputRules lists the rules.
func InputRules() []InputRule {
	rules := []InputRule{
		{Name: "too_long", About: "more code points than the policy allows"},
		{Name: "invalid_utf8", About: "bytes that are not UTF-8"},
		{Name: "control_characters", About: "control characters other than tab and line breaks"},
		{Name: "bidi_controls", About: "characters that override the direction of writing, which hide what a text says"},
		{Name: "hidden_text", About: "tag characters or runs of variation selectors, which can carry a text that nobody sees"},
		{Name: "invisible_characters", About: "zero-width characters inside Latin words or numbers, or several in a row"},
	}
	for _, r := range injectionRules {
		rules = append(rules, InputRule{r.name, r.about, true})
	}
	return append(rules,
		InputRule{"forged_turn", "markers by which chat templates tell the turns of system, user and assistant apart", true},
		InputRule{"encoded_instructions", "a text that breaks an advisory rule only when decoded", true})
}

const defaultMaxChars = 100_000

// Check reports which rules an input breaks.
func (p InputPolicy) Check(text string) InputReport {
	fired := map[string]bool{}
	most := p.MaxChars
	if most <= 0 {
		most = defaultMaxChars
	}
	fired["too_long"] = utf8.RuneCountInString(text) > most
	checkCharacters(text, fired)
	if !fired["too_long"] { // the rest costs more
		checkInstructions(text, fired)
	}
	report := InputReport{Allow: true, Rules: []string{}}
	for _, r := range InputRules() {
		if !fired[r.Name] {
			continue
		}
		report.Rules = append(report.Rules, r.Name)
		if !r.Advisory || slices.Contains(p.Block, r.Name) || slices.Contains(p.Block, "all") {
			report.Allow = false
		}
	}
	return report
}

func checkCharacters(text string, fired map[string]bool) {
	if !utf8.ValidString(text) {
		fired["invalid_utf8"] = true
	}
	var before rune // the last visible character
	selectors, widthless := 0, 0
	for i, r := range text {
		switch {
		case r == '\t', r == '\n', r == '\r':
		case r < ' ', r >= 0x7F && r < 0xA0 && r != 0x85:
			fired["control_characters"] = true
		case r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069:
			fired["bidi_controls"] = true
		case isTag(r):
			// The flags of England, Scotland and Wales are spelled in tags.
			if before != 0x1F3F4 {
				fired["hidden_text"] = true
			}
			continue
		}
		switch {
		case r >= 0xFE00 && r <= 0xFE0F, r >= 0xE0100 && r <= 0xE01EF:
			if selectors++; selectors > 1 { // a character takes one
				fired["hidden_text"] = true
			}
			continue
		case r >= 0x200B && r <= 0x200D, r >= 0x2060 && r <= 0x2064, r == 0xFEFF && i > 0, r == 0x115F, r == 0x1160, r == 0x3164, r == 0x180E:
			if widthless++; widthless > 2 {
				fired["invisible_characters"] = true
			}
			continue
		}
		if widthless > 0 && isASCIIWord(before) && isASCIIWord(r) {
			fired["invisible_characters"] = true
		}
		before, selectors, widthless = r, 0, 0
	}
}

func isASCIIWord(r rune) bool { return r < utf8.RuneSelf && isAlnum(byte(r)) }

// checkInstructions applies the advisory rules to every reading of text.
func checkInstructions(text string, fired map[string]bool) {
	last, first := -1, false
	eachPiece(text, func(l *layer, offset int) bool {
		first, last = offset != last, offset
		for _, name := range instructions(l) {
			if !first && !fired[name] {
				fired["encoded_instructions"] = true
			}
			fired[name] = true
		}
		return true
	})
}

// instructions returns the advisory rules that one reading of a text breaks.
func instructions(l *layer) []string {
	var found []string
	words := []string{}
	eachWord(l.text, func(folded []byte, _, _ int) bool {
		words = append(words, string(folded))
		return true
	})
	for i, word := range words {
		for _, p := range patternsByWord[word] {
			if !slices.Contains(found, p.rule) && p.pattern[1:].after(words[i+1:]) {
				found = append(found, p.rule)
			}
		}
	}
	lower := strings.ToLower(string(l.text))
	if slices.ContainsFunc(turnMarkers, func(m string) bool { return strings.Contains(lower, m) }) {
		found = append(found, "forged_turn")
	}
	return found
}

// A pattern is a row of sets of words. At most gap other words may stand
// before each of them.
type pattern []step

type step struct {
	words map[string]bool
	gap   int
}

// patternsByWord are the patterns of all rules by the words that they begin with.
var patternsByWord = func() map[string][]rulePattern {
	all := map[string][]rulePattern{}
	for _, r := range injectionRules {
		for _, p := range r.patterns {
			for word := range p[0].words {
				all[word] = append(all[word], rulePattern{r.name, p})
			}
		}
	}
	return all
}()

type rulePattern struct {
	rule    string
	pattern pattern
}

// after reports whether p stands at the beginning of words. It tries at most
// the product of the gaps.
func (p pattern) after(words []string) bool {
	if len(p) == 0 {
		return true
	}
	for i := 0; i <= p[0].gap && i < len(words); i++ {
		if p[0].words[words[i]] && p[1:].after(words[i+1:]) {
			return true
		}
	}
	return false
}

// compile reads patterns, a line each: sets of words such as "show|print", and
// between them the number of other words that may come in between, 0 if there
// is none.
func compile(lines string) []pattern {
	var patterns []pattern
	for line := range strings.Lines(lines) {
		var p pattern
		gap := 0
		for field := range strings.FieldsSeq(line) {
			if len(field) == 1 && isDigit(field[0]) {
				gap = int(field[0] - '0')
				continue
			}
			words := map[string]bool{}
			for w := range strings.SplitSeq(field, "|") {
				words[w] = true
			}
			p, gap = append(p, step{words, gap}), 0
		}
		if p != nil {
			patterns = append(patterns, p)
		}
	}
	return patterns
}
