package guard_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// TestPlainNumbers: what lets most numbers pass without a look at their zone must not let
// a part of a finding pass.
func TestPlainNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ label, text string }{
		{"DATE_TIME", "She was born on 1993-01-04 14:56:41 in Rome"},
		{"DATE_TIME", "bo\u200brn on 2/7/1961. Her name is not known"},
		{"DATE_TIME", "date of bi&#114;th 2/7/1961, please"},
		{"TR_LICENSE_PLATE", "number plate 34 ABC 123 is known"},
		{"DE_KFZ", "Kennzeichen B AB 123 am Ring"},
		{"UK_VEHICLE_REGISTRATION", "vehicle registration A12 BCD stands there"},
		{"DE_HANDELSREGISTER", "eingetragen im HRB 12345 Berlin"},
		{"DE_HANDELSREGISTER", "eingetragen im H\u200bRB 12345 Berlin"},
		{"UK_POSTCODE", "the postcode is E1 6AN in London"},
		{"IBAN_CODE", "to the account GT82 TRAJ 0102 0000 0012 1002 9690 please"},
		{"IBAN_CODE", "Please note MT84 MALT 0110 0001 2345 MTLC AST0 01S for later."},
		{"IBAN_CODE", "Please note SC18 SSCB 1101 0000 0000 0000 1497 USD is for later."},
		{"DE_VAT_ID", "Umsatzsteuer, Apt. 621 DE 136 695 976"},
		{"IP_ADDRESS", "the host 10 dot 20 dot 30 dot 40 is down"},
		{"PHONE_NUMBER", "Please call 33 93 31 44 55 today"},
		{"PHONE_NUMBER", "Please call 532  .234 5678 today"},
		{"US_SSN", "my SSN is 219 09 9999 there"},
		{"US_SSN", "ssn 2 1 9 0 9 9 9 9 9 there"},
		{"US_SSN", "my SSN is 219-\n09-9999 there"},
		{"ES_NIF", "Please note the NIF 55555555-K for later."},
		{"CREDIT_CARD", "the 60s: card 4111 1111 1111 1111, 64-bit, and 3.14"},
	} {
		whole := newGuard(t, guard.Policy{}).Scan([]byte(c.text))
		if !slices.ContainsFunc(whole, func(f guard.Finding) bool { return f.Label == c.label }) {
			t.Errorf("%q: got %v, want %s", c.text, whole, c.label)
		}
	}
	// A date is a candidate, whoever's it is.
	g := newGuard(t, guard.Policy{Threshold: 0.2})
	for _, text := range []string{"When: 1993-01-04 14:56:41\n", "on 9/19/1989 in town"} {
		if got := g.Scan([]byte(text)); len(got) != 1 || got[0].Label != "DATE_TIME" {
			t.Errorf("%q: got %v, want a date", text, got)
		}
	}
	// And the numbers of plain text are none.
	plain := "UTF-8, the 60s, 14th, 64-bit, 3.14, -1, $5, page 12, x86, R14 and 28 4376 Port Road, Unit 4502 Box 4881, APO AP 11949, 1993-01-04 14:56:41, 4/17/1986.\n"
	if got := newGuard(t, guard.Policy{}).Scan([]byte(strings.Repeat(plain, 5))); len(got) > 0 {
		t.Errorf("plain numbers: got %v", got)
	}
}
