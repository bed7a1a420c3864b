package guard

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// An OutputPolicy says what of a model's answer may go on to a user. Its zero
// value blocks answers with the tags of [InternalTags].
type OutputPolicy struct {
	Prompts *Prompts // may not be repeated; nil: none
	Fence   Fence    // may not be told; the zero Fence: none
	Tags    []string // names of further tags that are not for the user
	Guard   *Guard   // looks for personal data and secrets; nil: nothing does
	// Redact replaces what is found by [Removed], again and again until nothing
	// is found any more, instead of blocking the whole answer.
	Redact bool
}

// Removed stands where something was removed from an answer. It is put in place
// of a tag, because what is left would otherwise grow together.
const Removed = "[removed]"

// What was found in an answer. Personal data counts under the labels of
// [Entities].
const (
	FoundPrompt    = "prompt"
	FoundTag       = "tag"
	FoundDelimiter = "delimiter"
)

// An OutputReport is what became of an answer.
type OutputReport struct {
	Text  string         // what may go on: nothing if it was blocked
	Allow bool           // false: it was blocked
	Found map[string]int // kinds and how many; never values
	// Prompt is the name of a prompt that was repeated, "" if none was.
	Prompt string
}

// ErrOutput is what a caller may return for an answer that was blocked.
var ErrOutput = errors.New("guard: the answer was blocked, because it contains what is not for the user")

// outputRounds bounds how often an answer is redacted. What is still not clean
// then is blocked.
const outputRounds = 16

// ScanOutput reads an answer in every spelling and encoding it knows, and blocks
// or redacts it. What it lets through, it finds nothing in.
//
// Personal data is treated as the Guard's own policy says: replaced, left where
// it is and counted, or a reason to block, even with Redact.
func (p OutputPolicy) ScanOutput(text string) OutputReport {
	tags := newTagSet(append(InternalTags(), p.Tags...))
	report := OutputReport{Found: map[string]int{}}
	for range outputRounds {
		found, prompt := p.find(text, tags)
		report.Prompt = cmp.Or(report.Prompt, prompt)
		for _, f := range found {
			report.Found[f.kind]++
		}
		if len(found) > 0 && !p.Redact {
			return report
		}
		clean := replaceSpans(text, found)
		if p.Guard != nil {
			redacted, result, err := p.Guard.Redact([]byte(clean))
			for label, n := range result.Counts {
				report.Found[label] = max(n, report.Found[label]) // rounds see an audited one again
			}
			if err != nil {
				return report
			}
			clean = string(redacted)
		}
		if clean == text {
			report.Text, report.Allow = text, true
			return report
		}
		text = clean
	}
	return report
}

type outputFinding struct {
	kind       string
	start, end int
}

// find returns what is in text, in the order of its place there, and the name of
// the prompt that it repeats.
func (p OutputPolicy) find(text string, tags tagSet) (found []outputFinding, prompt string) {
	eachPiece(text, func(l *layer, offset int) bool {
		tags.find(l.text, func(i, j int) {
			start, end := l.span(i, j)
			found = append(found, outputFinding{FoundTag, offset + start, offset + end})
		})
		p.Fence.find(l, "", func(i, j int) {
			start, end := l.span(i, j)
			found = append(found, outputFinding{FoundDelimiter, offset + start, offset + end})
		})
		return true
	})
	if p.Prompts != nil {
		if leak := p.Prompts.Scan([]byte(text)); leak.Found() {
			found, prompt = append(found, outputFinding{FoundPrompt, leak.Start, leak.End}), leak.Prompt
		}
	}
	sortFindings(found)
	return slices.Compact(found), prompt // windows overlap, and layers agree
}

func sortFindings(found []outputFinding) {
	slices.SortFunc(found, func(a, b outputFinding) int {
		return cmp.Or(a.start-b.start, b.end-a.end, strings.Compare(a.kind, b.kind))
	})
}

// replaceSpans puts Removed in the place of what was found.
func replaceSpans(text string, found []outputFinding) string {
	var b strings.Builder
	done := 0
	for _, f := range found {
		if f.end <= done {
			continue
		}
		if f.start >= done {
			b.WriteString(text[done:f.start])
			b.WriteString(Removed)
		}
		done = f.end
	}
	b.WriteString(text[done:])
	return b.String()
}
