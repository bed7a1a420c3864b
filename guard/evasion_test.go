package guard_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
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
		// Letters for digits, in what has no groups of its own.
		"phone +49 3O 52S94961":             "PHONE_NUMBER +49 3O 52S94961",
		"phone (646) 286-370I":              "PHONE_NUMBER (646) 286-370I",
		"iban GBl2 WFWE 4077 7440 8457 l6":  "IBAN_CODE GBl2 WFWE 4077 7440 8457 l6",
		"iban ESB279955B59144277911B11":     "IBAN_CODE ESB279955B59144277911B11",
		"acct numberNL12 ZTUJ 6442 5892 21": "IBAN_CODE NL12 ZTUJ 6442 5892 21",
		// Cut at a mark, or around it.
		"ip 68.26.184.\" + \"182":           "IP_ADDRESS 68.26.184.\" + \"182",
		"ip 147.81**.152.224":               "IP_ADDRESS 147.81**.152.224",
		"ip 231\n.94.52.215":                "IP_ADDRESS 231\n.94.52.215",
		"ip 133.89.\n142.103":               "IP_ADDRESS 133.89.\n142.103",
		"ip 92 . 74 . 192 . 220":            "IP_ADDRESS 92 . 74 . 192 . 220",
		"call +44 20** 7946 0376":           "PHONE_NUMBER +44 20** 7946 0376",
		"305\n-555-9170":                    "PHONE_NUMBER 305\n-555-9170",
		"the ip is **1 8 4 . 1 8 . 1 . 2**": "IP_ADDRESS 1 8 4 . 1 8 . 1 . 2",
		// Tokens that go on behind a seam or in the next line.
		"key AKIA32M\n7BKZXRXCLE2WQ":                                          "SECRET AKIA32M\n7BKZXRXCLE2WQ",
		"key sk-proj-\" + \"xi1rfvjVWcpbbE8uSvk4bfPQ0tEsMs0SpLlPOB90J6gEX2qS": "SECRET sk-proj-\" + \"xi1rfvjVWcpbbE8uSvk4bfPQ0tEsMs0SpLlPOB90J6gEX2qS",
		// Of two ways, the one inside is undone, too.
		"ef bc 92 36 38 2d 33 32 2d 30 35 ef bc 90 34":                     "US_SSN ef bc 92 36 38 2d 33 32 2d 30 35 ef bc 90 34",
		"0x32 0x36 0x38 0xe2 0x80 0x91 0x33 0x32 0x2d 0x30 0x35 0x30 0x34": "US_SSN 0x32 0x36 0x38 0xe2 0x80 0x91 0x33 0x32 0x2d 0x30 0x35 0x30 0x34",
	} {
		if got := found(g, text); len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		for _, size := range []int{1, 7} {
			differ(t, text, "by hand", streamed(t, g, text, func(int) int { return size }), redacted(t, g, text))
		}
	}
}

// What is cut by the end of a line of base64 is read as a whole, but where the line
// seems to end in a word.
func TestWrappedBase64(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	found, all := 0, 0
	for _, value := range []string{"ghp_8Syp58m005C4LB8vg7BkCe1zFiHPpbebNNdY", "IT27 V432 6780 9510 4613 3069 118", "4929 3600 0381 1724"} {
		for pad := range 57 {
			code := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a ", 30) + strings.Repeat("x", pad) + " " + value + " and no more of it than this."))
			for _, end := range []string{"\n", "\r\n"} {
				var lines []string
				for rest := code; rest != ""; rest = rest[min(76, len(rest)):] {
					lines = append(lines, rest[:min(76, len(rest))])
				}
				text := "attached:\n" + strings.Join(lines, end) + "\nbye"
				from := strings.Index(text, code[:8]) + (61+pad)*4/3
				if all++; slices.ContainsFunc(g.Scan([]byte(text)), func(f guard.Finding) bool { return f.Start <= from && f.End >= from+len(value)*4/3 }) {
					found++
				}
				differ(t, text, "wrapped", streamed(t, g, text, func(int) int { return 11 }), redacted(t, g, text))
			}
		}
	}
	if all-found > all/10 {
		t.Errorf("found %d of %d", found, all)
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
