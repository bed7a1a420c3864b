package guard_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// The marks of an address may be spelled, in brackets or apart.
func TestSpelledAddresses(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, marks := range [][2]string{
		{" at ", " dot "}, {" AT ", " DOT "}, {"[at]", "[dot]"}, {"(at)", "(dot)"}, {"{at}", "{dot}"}, {"<at>", "<dot>"}, {" [at] ", " [dot] "}, {" (at) ", "."}, {"_at_", "_dot_"}, {"-at-", "-dot-"},
		{"@", "[.]"}, {"@", "(.)"}, {"@", " dot "}, {"[@]", "[.]"}, {" @ ", " . "}, {" @ ", "."}, {"@ ", "."}, {" @", "."}, {" at ", "."}, {"|at|", "|dot|"}, {"*at*", "*dot*"}, {`"at"`, "."}, {"(a)", "."},
	} {
		value := strings.NewReplacer("@", marks[0], ".", marks[1]).Replace("nora17@mail.example.com")
		checkFound(t, g, "EMAIL_ADDRESS", fmt.Sprintf("Please note «%s» for later.", value))
		checkFound(t, g, "EMAIL_ADDRESS", fmt.Sprintf("«%s»", value))
	}
	checkFound(t, g, "EMAIL_ADDRESS", "email: «frank at company dot org»")
	for _, text := range []string{
		"look at the dot com bubble", "meet at noon dot it down", "connect the dots at dawn", "a dot at the end", "see us at dawn. com is short", "antidote at large", "the anecdote dot",
	} {
		if got := found(g, text); len(got) != 0 {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := found(g, "the code is hosted at github.com, look at it"); len(got) != 1 || got[0] != "URL github.com" {
		t.Errorf("a host behind at: %q", got)
	}
}

// An address may be cut by what leaves no mark in what is shown or computed.
func TestCutAddresses(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, seam := range []string{"**", "`", "``", "~~", "{}", "[]", "()", `" + "`, "' + '", `"+"`, "\\\n"} {
		for _, value := range []string{"no%sra@example.com", "nora%s@example.com", "nora@%sexample.com", "nora@exam%sple.com", "nora@example%s.com", "nora@example.%scom"} {
			if len(seam) > 2 && strings.Contains(value, "@%s") {
				continue
			}
			checkFound(t, g, "EMAIL_ADDRESS", fmt.Sprintf("Please note «"+value+"» for later.", seam))
		}
	}
	checkFound(t, g, "EMAIL_ADDRESS", "Please note «nora@exam\nple.com» for later.")
}

// So may the token of a service, behind its prefix.
func TestCutTokens(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(14, 7))}
	g := newGuard(t, guard.Policy{})
	for _, seam := range []string{"**", "`", `" + "`, "' + '", `"+"`, "' . '", "\\\n", "=\n", "=\r\n"} {
		checkFound(t, g, "SECRET", "Please note «gh"+"p_"+m.of(mixed, 20)+seam+m.of(mixed, 16)+"» for later.")
	}
	plain := "gh" + "p_" + m.of(mixed, 36)
	if got, want := found(g, "`"+plain+"` **and** so on"), "SECRET "+plain; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
