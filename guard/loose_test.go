package guard_test

import (
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// checkFound expects in text, in which «» are around it, one finding, streamed too.
func checkFound(t *testing.T, g *guard.Guard, label, text string) {
	t.Helper()
	_, value, _ := strings.Cut(text, "«")
	value, _, _ = strings.Cut(value, "»")
	text = strings.NewReplacer("«", "", "»", "").Replace(text)
	if got := found(g, text); len(got) != 1 || got[0] != label+" "+value {
		t.Errorf("%q: %q, want %s of %q", text, got, label, value)
	}
	whole := redacted(t, g, text)
	for _, size := range []int{1, 4, 11} {
		differ(t, text, "pieces", streamed(t, g, text, func(int) int { return size }), whole)
	}
}

// Groups of a number may have anything between them that is not a word.
func TestOddSeparators(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for label, groups := range map[string][]string{
		"US_SSN":      {"268", "32", "0504"},
		"CREDIT_CARD": {"4929", "3600", "0381", "1724"},
		"IBAN_CODE":   {"GB82", "WEST", "1234", "5698", "7654", "32"},
	} {
		for _, sep := range []string{"~", "|", ",", "*", "=", "#", "'", "`", "--", "..", "…", "•", "‧", ")-(", "`-`", "**-**", " _ ", "<br>", "</td><td>", `" + "`, `","`, `\n`, "%0A"} {
			if label == "US_SSN" && (sep == `","` || sep == " _ ") {
				continue // as three numbers in a list
			}
			checkFound(t, g, label, "Please note «"+strings.Join(groups, sep)+"» for later.")
		}
	}
}

// A value may be cut in two at any place.
func TestCutNumbers(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, sep := range []string{"**", "`", "~~", "_", `" + "`, `"+"`, "' + '", "\\\n", "=\r\n", "{}", "[]", "<!-- -->", "<br>", "\t"} {
		checkFound(t, g, "US_SSN", "Please note «268-3"+sep+"2-0504» for later.")
		checkFound(t, g, "CREDIT_CARD", "Please note «4929 3600 03"+sep+"81 1724» for later.")
		checkFound(t, g, "IBAN_CODE", "Please note «GB82 WEST 12"+sep+"34 5698 7654 32» for later.")
		checkFound(t, g, "PHONE_NUMBER", "Please note «+1 201-55"+sep+"5-0123» for later.")
		checkFound(t, g, "PHONE_NUMBER", "My phone is «(305) 555-01"+sep+"22» for now.")
	}
}

// Letters may stand for the digits that they look like, if a check digit or the
// groups say so.
func TestLettersForDigits(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for text, label := range map[string]string{
		"Please note «268-32-O5O4» for later.":                 "US_SSN",
		"Please note «26B-32-05O4» for later.":                 "US_SSN",
		"My SSN is «2683205O4»":                                "US_SSN",
		"Please note «4929 36OO O38l l724» for later.":         "CREDIT_CARD",
		"Please note «4929360003BI1724» for later.":            "CREDIT_CARD",
		"Please note «DE89 37O4 OO44 O532 Ol3O OO» for later.": "IBAN_CODE",
		"Please note «GB82 WEST l234 S698 7654 32» for later.": "IBAN_CODE",
		"Please note «201-SS5-0123» for later.":                "PHONE_NUMBER",
		"Please note «l92.16B.1.2O» for later.":                "IP_ADDRESS",
		"Please note «192[.]168[.]1[.]20» for later.":          "IP_ADDRESS",
		"Please note «192 dot 168 dot 1 dot 20» for later.":    "IP_ADDRESS",
		"Please note «192.1`68.1.20» for later.":               "IP_ADDRESS",
		"Please note «2-6-8-3-2-0-5-0-4» for later.":           "US_SSN",
	} {
		checkFound(t, g, label, text)
	}
	for _, text := range []string{
		"4929 36OO O38l l725", "DE88 37O4 OO44 O532 Ol3O OO", "000-32-O5O4", "GB82WESTB2345698765432", "AES{128,192,256}", "0...01...10...0",
		"1.3.6.1.5.5.7.1.1", "as of 2.0\n26.3.1: stacks", "Suite 680 36 4022 Oakridge", "scores 7, 9, 1, 1, 3, 5, 2, 0, 7", "{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}",
		"| 268 | 32 | 0504 | 17 |", "table 268\t32\t0504\t17", "268, 32, 0504 and 17",
	} {
		if got := found(g, text); len(got) != 0 {
			t.Errorf("%q: %q", text, got)
		}
	}
}
