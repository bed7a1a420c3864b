package secrets_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/secrets"
)

// The scrubber finds exactly what a search for each value at each place finds,
// also after values were forgotten. Of these letters no other spelling consists.
func TestScrubberFindsWhatASearchFinds(t *testing.T) {
	word := rapid.StringOfN(rapid.SampledFrom([]rune("gz ")), 5, 9, -1)
	rapid.Check(t, func(t *rapid.T) {
		var s secrets.Scrubber
		values := rapid.SliceOfN(word, 0, 6).Draw(t, "values")
		for _, v := range values {
			s.Add(secrets.NewString(v))
		}
		for _, v := range rapid.SliceOf(rapid.SampledFrom(append(values, "other"))).Draw(t, "forgotten") {
			s.Remove(secrets.NewString(v))
			values = slices.DeleteFunc(values, func(one string) bool { return one == v })
		}
		text := rapid.StringOf(rapid.SampledFrom([]rune("gz "))).Draw(t, "text")
		var want strings.Builder
		done := 0
		for i := range text {
			end := 0
			for _, v := range values {
				if strings.HasPrefix(text[i:], v) {
					end = max(end, i+len(v))
				}
			}
			if end > 0 && i >= done {
				want.WriteString(text[done:i] + secrets.Redacted)
			}
			if end > 0 {
				done = max(done, end)
			}
		}
		want.WriteString(text[done:])
		if got := s.Scrub(text); got != want.String() {
			t.Fatalf("%q without %q is %q, want %q", text, values, got, want.String())
		}
	})
}
