package guard_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode"

	"github.com/tamshai/phoenix/guard"
)

// each returns s with f of each byte, and between between them.
func each(s, between string, f func(byte) string) string {
	var all []string
	for i := range len(s) {
		all = append(all, f(s[i]))
	}
	return strings.Join(all, between)
}

// Ways to write a value that a reader, or the program behind, undoes. Each is one
// finding, of all of it.
func TestEvasions(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	code := func(format string) func(byte) string { return func(c byte) string { return fmt.Sprintf(format, c) } }
	same := func(c byte) string { return string(rune(c)) }
	digits := func(zero rune) func(string) string {
		return func(s string) string {
			return strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' {
					return zero + r - '0'
				}
				return r
			}, s)
		}
	}
	utf16 := func(s string) string {
		wide, err := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder().String(s)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString([]byte(wide))
	}
	for name, write := range map[string]func(string) string{
		"zero width":           func(s string) string { return each(s, "\u200b", same) },
		"soft hyphens":         func(s string) string { return each(s, "\u00ad", same) },
		"variation selectors":  func(s string) string { return each(s, "\ufe0f", same) },
		"combining":            func(s string) string { return each(s, "\u0336", same) },
		"full width":           digits('０'),
		"Arabic":               digits('٠'),
		"mathematical":         digits('𝟘'),
		"segmented":            digits('🯰'),
		"entities":             func(s string) string { return each(s, "", code("&#%d;")) },
		"entities in hex":      func(s string) string { return each(s, "", code("&#x%x;")) },
		"percent":              func(s string) string { return each(s, "", code("%%%02X")) },
		"percent, twice":       func(s string) string { return each(s, "", code("%%25%02X")) },
		"percent u":            func(s string) string { return each(s, "", code("%%u%04x")) },
		`\u`:                   func(s string) string { return each(s, "", code(`\u%04x`)) },
		`\u in a string of it`: func(s string) string { return each(s, "", code(`\\u%04x`)) },
		`\x`:                   func(s string) string { return each(s, "", code(`\x%02x`)) },
		"octal":                func(s string) string { return each(s, "", code(`\%03o`)) },
		"base64":               func(s string) string { return base64.StdEncoding.EncodeToString([]byte("say " + s + " 1")) },
		"base64 of UTF-16":     utf16,
		"hex":                  func(s string) string { return hex.EncodeToString([]byte(s)) },
		"hex with 0x":          func(s string) string { return "0x" + hex.EncodeToString([]byte(s)) },
		"codes in hex":         func(s string) string { return each(s, " ", code("%02x")) },
		"codes with 0x":        func(s string) string { return each(s, ", ", code("0x%02X")) },
		"codes with colons":    func(s string) string { return each(s, ":", code("%02x")) },
		"codes in decimal":     func(s string) string { return each(s, ",", code("%d")) },
		"U+":                   func(s string) string { return each(s, " ", code("U+%04X")) },
		"spaces":               func(s string) string { return each(s, " ", same) },
		"two spaces":           func(s string) string { return each(s, "  ", same) },
		"hyphens":              func(s string) string { return each(s, "-", same) },
		"underscores":          func(s string) string { return each(s, "_", same) },
		"stars":                func(s string) string { return each(s, "*", same) },
	} {
		for label, value := range map[string]string{"US_SSN": "268-32-0504", "CREDIT_CARD": "4929 3600 0381 1724", "EMAIL_ADDRESS": "nora.b@example.com"} {
			v := write(value)
			if v == value {
				continue
			}
			text := "Please note " + v + " for later."
			if got := found(g, text); len(got) != 1 || got[0] != label+" "+v {
				t.Errorf("%s: %q: %q, want %s", name, text, got, label)
			}
			whole := redacted(t, g, text)
			for _, size := range []int{1, 5, 13} {
				differ(t, text, name, streamed(t, g, text, func(int) int { return size }), whole)
			}
		}
	}
	for text, want := range map[string]string{
		"ssn: ⑻⑹⑸-⑴⑼-⑷⑴⑶⑵":                 "US_SSN ⑻⑹⑸-⑴⑼-⑷⑴⑶⑵",
		"ssn 612**-13**-4210":              "US_SSN 612**-13**-4210",
		"ssn 612\x00-13\x01-4210":          "US_SSN 612\x00-13\x01-4210",
		"ssn 612-\x1b[1;31m13\x1b[0m-4210": "US_SSN 612-\x1b[1;31m13\x1b[0m-4210",
		"4\x7f929\x00 3600 0381 1724":      "CREDIT_CARD 4\x7f929\x00 3600 0381 1724",
		"value599-34-5017, mine":           "US_SSN 599-34-5017",
		"call (926)\t970-4079":             "PHONE_NUMBER (926)\t970-4079",
		"call (374)\n426-0081":             "PHONE_NUMBER (374)\n426-0081",
		"number=%2B1+258+631+9138&next":    "PHONE_NUMBER %2B1+258+631+9138",
		"call %28670%29+698-9803, please":  "PHONE_NUMBER %28670%29+698-9803",
	} {
		if got := found(g, text); len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Base64 and base32 need not have a digit or padding, nor a word before them.
func TestEncodingsOfLetters(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, text := range []string{"NDMwLTAzLTMyMDY", "see NDMwLTAzLTMyMDY there", "MFXGIIDDMFWGYIBUGE2TKNJVGI3DOMI", "call me at KzEgNDgwIDgxNyAzNjcz."} {
		if got := found(g, text); len(got) != 1 {
			t.Errorf("%q: %q", text, got)
		}
	}
	for shift := range 20 {
		text := strings.Repeat(" ", shift) + "NDMwLTAzLTMyMDY" + strings.Repeat(".", shift)
		if got := found(g, text); len(got) != 1 {
			t.Errorf("%q: %q", text, got)
		}
		for _, size := range []int{1, 3} {
			differ(t, text, "letters", streamed(t, g, text, func(int) int { return size }), redacted(t, g, text))
		}
	}
	for _, text := range []string{"internationalization", "SomeLongFunctionNameInAProgram", "AN_UPPER_CASE_NAME_OF_A_CONSTANT", strings.Repeat("abcdefgh", 2000)} {
		if got := found(g, text); len(got) != 0 {
			t.Errorf("%.50q: %q", text, got)
		}
	}
}
