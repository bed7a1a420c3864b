package secrets

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// minScrubbed is the length in bytes below which a value is not searched for:
// replacing every "a" or "1234" would make a text unreadable and protect
// nothing.
const minScrubbed = 5

// A Scrubber removes known secret values from texts that come from elsewhere:
// a server's error, a child's output. Its zero value knows no values and is
// ready to use. It is safe for concurrent use.
//
// It finds a value as it is, in JSON and URL escapes, in hexadecimal, and in
// base64 at each of the three alignments a longer encoded text can give it.
// Values shorter than five bytes are left alone.
type Scrubber struct {
	mu    sync.RWMutex
	known []knownValue
}

// knownValue holds a value as a Secret does, out of the reach of fmt.
type knownValue struct {
	value    Secret
	patterns func() []string
}

// Add makes values known. Adding one twice does nothing.
func (s *Scrubber) Add(values ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		value := v.Bytes()
		if len(value) < minScrubbed || slices.ContainsFunc(s.known, func(k knownValue) bool { return k.value.Equal(v) }) {
			continue
		}
		patterns := spellings(value)
		s.known = append(s.known, knownValue{New(value), func() []string { return patterns }})
	}
}

// Remove forgets values that are not secret any more, like a dead SecretID.
func (s *Scrubber) Remove(values ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		s.known = slices.DeleteFunc(s.known, func(k knownValue) bool { return k.value.Equal(v) })
	}
}

// Format writes Redacted for every verb: fmt must not walk through what lives.
func (s *Scrubber) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// Scrub returns text with every known value replaced by Redacted.
func (s *Scrubber) Scrub(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, k := range s.known {
		for _, pattern := range k.patterns() {
			text = strings.ReplaceAll(text, pattern, Redacted)
		}
	}
	return text
}

// spellings returns the ways in which value may stand in a text, the longest
// first, so that no replacement leaves a rest of another.
func spellings(value []byte) []string {
	plain := string(value)
	quoted, _ := json.Marshal(plain)
	jsonText := string(quoted[1 : len(quoted)-1])
	const digits = "0123456789abcdef"
	hexText := make([]byte, 0, 2*len(value))
	for _, b := range value {
		hexText = append(hexText, digits[b>>4], digits[b&15])
	}
	all := []string{
		plain, jsonText, url.QueryEscape(plain), url.PathEscape(plain),
		string(hexText), strings.ToUpper(string(hexText)),
	}
	// In a longer base64 text the value starts at one of three alignments;
	// the characters that its neighbours share are cut off at both ends.
	for lead := range 3 {
		padded := append(make([]byte, lead), value...)
		first := (lead*8 + 5) / 6
		last := len(padded) * 8 / 6
		if last-first < minScrubbed {
			continue
		}
		all = append(all,
			base64.RawStdEncoding.EncodeToString(padded)[first:last],
			base64.RawURLEncoding.EncodeToString(padded)[first:last])
	}
	slices.Sort(all)
	all = slices.Compact(all)
	slices.SortStableFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}
