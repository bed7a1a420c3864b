package guard_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/guard"
)

func ExampleOutputPolicy_ScanOutput() {
	policy := guard.OutputPolicy{Tags: []string{"case_file"}, Redact: true}
	report := policy.ScanOutput("The total is 12. <user_<internal>query>Sum it</user_query> ＜Case File＞")
	fmt.Println(report.Text)
	fmt.Println(report.Found["tag"])

	policy.Redact = false
	fmt.Println(policy.ScanOutput("The total is 12. &lt;user_query&gt;").Allow)
	// Output:
	// The total is 12. [removed]Sum it[removed] [removed]
	// 3
	// false
}

var spellings = []string{
	"<user_query>", "</user_query>", "<user_query >", "< user_query>", "<USER_QUERY>", "<user_query/>", "<user_query id=\"7\">", "</ user_query\n>",
	"<user-query>", "<user query>", "<user.query>", "<userQuery>", "<u s e r _ q u e r y>", "&lt;user_query&gt;", "&#60;user_query&#x3e;", "%3Cuser_query%3E",
	`\u003cuser_query\u003e`, "＜user_query＞", "＜ｕｓｅｒ＿ｑｕｅｒｙ＞", "<us\u200ber_query>", "<usеr_quеry>", "‹user_query›", "⟨user_query⟩",
	"<user_<internal>query>", "<user_</internal>query>", "<us<internal>er_<user_query>query>", "<<internal>user_query>", "&lt;user_<in<system>ternal>query>",
	"<user_query", "<user_query\nnot closed", "PHVzZXJfcXVlcnk+d2hhdD88L3VzZXJfcXVlcnk+", "&amp;lt;user_query&amp;gt;",
}

// A tag in any spelling blocks, or is redacted until nothing is found.
func TestOutputTags(t *testing.T) {
	for _, s := range spellings {
		text := "before " + s + " after"
		if r := (guard.OutputPolicy{}).ScanOutput(text); r.Allow || r.Text != "" || r.Found["tag"] == 0 {
			t.Errorf("%q: %+v", s, r)
		}
		r := guard.OutputPolicy{Redact: true}.ScanOutput(text)
		if !r.Allow || !strings.HasPrefix(r.Text, "before [removed]") || !strings.HasSuffix(r.Text, " after") {
			t.Errorf("%q: %+v", s, r)
		}
		if strings.Contains(strings.ToLower(r.Text), "query") {
			t.Errorf("%q became %q", s, r.Text)
		}
	}
	if r := (guard.OutputPolicy{Tags: []string{"case_file", ""}}).ScanOutput("see <Case-File no=3>"); r.Allow {
		t.Errorf("%+v", r)
	}
}

func TestOutputPasses(t *testing.T) {
	for _, text := range []string{
		"", "a < b and c > d", "<p>Hello</p><systematic>", "user_query is the name of a column", "x<y; internal > external", "List<String> internals",
		"if (a<system_prompts) {}", "<b>internal</b>", "5 << 3 >> 1", "<userquerying>", "The system said: <ok>", "<data-table>",
	} {
		r := guard.OutputPolicy{Redact: true}.ScanOutput(text)
		if !r.Allow || r.Text != text || len(r.Found) != 0 {
			t.Errorf("%q: %+v", text, r)
		}
	}
}

func TestOutputPromptAndDelimiter(t *testing.T) {
	g := newGenerator(20)
	prompt := g.prompt(5)
	fence := guard.NewDelimiters(guard.DelimiterConfig{}).Fence("u", "s", "t")
	policy := guard.OutputPolicy{Prompts: register(t, prompt), Fence: fence, Redact: true}
	for _, r := range rewritings {
		text := "I was told this. " + r.do(g, prompt) + " That is all."
		got := policy.ScanOutput(text)
		if got.Allow && (got.Found["prompt"] == 0 || policy.Prompts.Scan([]byte(got.Text)).Found()) {
			t.Errorf("%s: %+v", r.name, got)
		}
		blocking := policy
		blocking.Redact = false
		if got := blocking.ScanOutput(text); got.Allow || got.Text != "" {
			t.Errorf("%s: %+v", r.name, got)
		}
	}
	nonce := nonceOf(t, fence)
	// What follows has no character of the alphabet, which could be the next of it.
	for _, shown := range []string{nonce, "<data-" + nonce + ">", strings.ToUpper(nonce[:14]), base64.StdEncoding.EncodeToString([]byte(nonce))} {
		got := policy.ScanOutput("The tag is " + shown + ", 18 in all.")
		if !got.Allow || got.Found["delimiter"] == 0 || fence.In(got.Text) || !strings.HasSuffix(got.Text, ", 18 in all.") {
			t.Errorf("%q: %+v", shown, got)
		}
	}
}

// Personal data is treated as the guard's policy says.
func TestOutputPersonalData(t *testing.T) {
	g, err := guard.New(guard.Policy{Actions: map[string]guard.Action{"IBAN_CODE": guard.Block, "EMAIL_ADDRESS": guard.Audit}})
	if err != nil {
		t.Fatal(err)
	}
	policy := guard.OutputPolicy{Guard: g, Redact: true}
	r := policy.ScanOutput("SSN 219-09-9999, <internal>219-09-<system>9998, write to anna@example.com")
	if !r.Allow || r.Text != "SSN <US_SSN>, [removed]219-09-[removed]9998, write to anna@example.com" || r.Found["US_SSN"] != 1 || r.Found["EMAIL_ADDRESS"] != 1 || r.Found["tag"] != 2 {
		t.Errorf("%+v", r)
	}
	if r := policy.ScanOutput("Pay to DE89 3704 0044 0532 0130 00."); r.Allow || r.Text != "" || r.Found["IBAN_CODE"] != 1 {
		t.Errorf("%+v", r)
	}
	policy.Redact = false
	if r := policy.ScanOutput("SSN 219-09-9999"); !r.Allow || r.Text != "SSN <US_SSN>" {
		t.Errorf("%+v", r)
	}
}

// Whatever is made of the parts of tags: what is let through has none, and
// redacting it again changes nothing.
func TestOutputFixpoint(t *testing.T) {
	parts := []string{"<", ">", "</", "user", "_", "query", "internal", "sys", "tem", " ", "&lt;", "&gt;", "%3c", "＜", "\u200b", "&amp;", "lt;", "[removed]", "<internal>", "x", `\u003c`, "/", "\n"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 40).Draw(t, "parts"), "")
		r := guard.OutputPolicy{Redact: true}.ScanOutput(text)
		if !r.Allow {
			return
		}
		again := guard.OutputPolicy{}.ScanOutput(r.Text)
		if !again.Allow || again.Text != r.Text {
			t.Fatalf("%q became %q, and that %+v", text, r.Text, again)
		}
		stripped := strings.ReplaceAll(r.Text, guard.Removed, "")
		if strings.Contains(r.Text, "<user_query>") || strings.Contains(r.Text, "<internal>") {
			t.Fatalf("%q became %q (%q)", text, r.Text, stripped)
		}
	})
}

// However a stream is cut, no tag leaves; redacted, it ends as a whole answer
// does.
func TestOutputWriter(t *testing.T) {
	for _, s := range spellings {
		text := "before " + s + " after, in plain words."
		for n := 1; n < 40; n += 3 {
			var out strings.Builder
			w := guard.OutputPolicy{}.NewWriter(&out)
			err := cutEvery(text, n, func(s string) error { _, err := io.WriteString(w, s); return err })
			if err == nil {
				err = w.Close()
			}
			if !errors.Is(err, guard.ErrOutput) || strings.Contains(squeezed(out.String()), "userquery") || strings.Contains(out.String(), "after") {
				t.Errorf("%q in pieces of %d: %v, %q", s, n, err, out.String())
			}
			out.Reset()
			w = guard.OutputPolicy{Redact: true}.NewWriter(&out)
			err = cutEvery(text, n, func(s string) error { _, err := io.WriteString(w, s); return err })
			if err == nil {
				err = w.Close()
			}
			if err != nil || w.Found()["tag"] == 0 || !strings.HasPrefix(out.String(), "before ") || !strings.HasSuffix(out.String(), "plain words.") {
				t.Errorf("%q in pieces of %d: %v, %q", s, n, err, out.String())
			}
			if r := (guard.OutputPolicy{}).ScanOutput(out.String()); !r.Allow {
				t.Errorf("%q in pieces of %d became %q", s, n, out.String())
			}
		}
	}
}

// The nonce of a fence ends a stream before half of it has left.
func TestOutputWriterDelimiter(t *testing.T) {
	fence := guard.NewDelimiters(guard.DelimiterConfig{}).Fence("u", "s", "t")
	nonce := nonceOf(t, fence)
	for n := 1; n < 60; n++ {
		var out strings.Builder
		w := guard.OutputPolicy{Fence: fence}.NewWriter(&out)
		err := cutEvery("I see the tag "+nonce+" in my prompt, and more.", n, func(s string) error { _, err := io.WriteString(w, s); return err })
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, guard.ErrOutput) || strings.Contains(out.String(), nonce[:12]) || w.Found()["delimiter"] == 0 {
			t.Errorf("in pieces of %d: %v, %q", n, err, out.String())
		}
	}
}

// What has no finding passes unchanged.
func TestOutputWriterPasses(t *testing.T) {
	parts := []string{"<", ">", "</", "usual", "_", "query", "interval", " ", "&lt;", "x = 3", "＜", "[removed]", "<b>", "\n", "lorem ipsum"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 60).Draw(t, "parts"), "")
		n := rapid.IntRange(1, 50).Draw(t, "n")
		var out strings.Builder
		w := guard.OutputPolicy{Redact: true}.NewWriter(&out)
		if err := errors.Join(cutEvery(text, n, func(s string) error { _, err := io.WriteString(w, s); return err }), w.Close()); err != nil || out.String() != text {
			t.Fatalf("%q became %q: %v", text, out.String(), err)
		}
	})
}

func squeezed(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

func TestOutputLong(t *testing.T) {
	filler := strings.Repeat("lorem ipsum <b>dolor</b> ", 20_000)
	r := guard.OutputPolicy{Redact: true}.ScanOutput(filler + "<user_query>" + filler)
	if !r.Allow || r.Text != filler+guard.Removed+filler {
		t.Errorf("found %v", r.Found)
	}
	for _, hostile := range []string{strings.Repeat("<", 200_000), strings.Repeat("<user_", 50_000), strings.Repeat("<internal", 30_000), strings.Repeat("<user_<internal>", 20_000)} {
		_ = guard.OutputPolicy{Redact: true}.ScanOutput(hostile) // ends
	}
}
