package guard_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/guard"
)

var testKey = []byte("0123456789abcdef")

func TestActions(t *testing.T) {
	g := newGuard(t, guard.Policy{Key: testKey, Default: guard.Audit, Actions: map[string]guard.Action{
		"US_SSN": guard.Redact, "CREDIT_CARD": guard.Mask, "EMAIL_ADDRESS": guard.Hash, "IBAN_CODE": guard.Pseudonymise,
	}})
	out, result, err := g.Redact([]byte("219-09-9999, 4111 1111 1111 1111, a@b.com a@b.com GB29NWBK60161331926819 10.1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(out), " ")
	want := "<US_SSN>, **** **** **** 1111, <EMAIL_ADDRESS:"
	if !strings.HasPrefix(string(out), want) || !strings.HasSuffix(string(out), "<IBAN_CODE> 10.1.2.3") {
		t.Errorf("got %q", out)
	}
	if h := parts[len(parts)-4:]; h[0] != h[1] {
		t.Errorf("equal values have the hashes %q and %q", h[0], h[1])
	}
	if fmt.Sprint(result.Counts) != "map[CREDIT_CARD:1 EMAIL_ADDRESS:2 IBAN_CODE:1 IP_ADDRESS:1 US_SSN:1]" {
		t.Errorf("counts %v", result.Counts)
	}
}

func TestBlock(t *testing.T) {
	g := newGuard(t, guard.Policy{Actions: map[string]guard.Action{"CREDIT_CARD": guard.Block}})
	out, _, err := g.Redact([]byte("pay 4111111111111111 now"))
	var blocked *guard.BlockedError
	if out != nil || !errors.As(err, &blocked) || blocked.Counts["CREDIT_CARD"] != 1 {
		t.Fatalf("got %q, %v", out, err)
	}
	if strings.Contains(err.Error(), "4111") {
		t.Errorf("the error has the value: %v", err)
	}
	var stream bytes.Buffer
	w := g.NewWriter(&stream)
	_, _ = io.WriteString(w, "first words, then pay 4111")
	_, err1 := io.WriteString(w, "111111111111 now, please go on with it ")
	err2 := w.Close()
	if !errors.As(errors.Join(err1, err2), &blocked) {
		t.Errorf("the stream ended with %v, %v", err1, err2)
	}
	if strings.Contains(stream.String(), "4111") || strings.Contains(stream.String(), "now") {
		t.Errorf("the stream let pass %q", stream.String())
	}
}

func TestRestore(t *testing.T) {
	g := newGuard(t, guard.Policy{Default: guard.Pseudonymise})
	conversation := func(id string) *guard.Conversation {
		c, err := g.NewConversation(testKey, id)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := conversation("one")
	out, _, err := c.Redact([]byte("Write to alice@tamshai.com"))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(string(out), "Write to ")
	again, _, _ := c.Redact([]byte("again alice@tamshai.com"))
	if !strings.HasSuffix(string(again), name) {
		t.Errorf("the pseudonym changed from %s to %s", name, again)
	}
	if twice, _, _ := c.Redact(out); string(twice) != string(out) {
		t.Errorf("a pseudonym is a finding: %s", twice)
	}
	bare := strings.Trim(name, "<>")
	for text, want := range map[string]string{
		"I wrote to " + name + ".":          "I wrote to alice@tamshai.com.",
		strings.ToLower(name):               "alice@tamshai.com",
		bare + ", " + strings.ToLower(bare): "alice@tamshai.com, alice@tamshai.com",
		strings.ReplaceAll(bare, "_", `\_`): "alice@tamshai.com",
		"**" + name + "**" + name:           "**alice@tamshai.com**alice@tamshai.com",
		"<" + name + ">":                    "<alice@tamshai.com>",
		"x" + bare:                          "x" + bare,
		bare + "x":                          bare + "x",
		"5" + bare:                          "5" + bare,
		"<EMAIL_ADDRESS_bcdfghjklmnpqrst>":  "<EMAIL_ADDRESS_bcdfghjklmnpqrst>",
		"<US_SSN" + strings.TrimPrefix(bare, "EMAIL_ADDRESS"): "<US_SSN" + strings.TrimPrefix(bare, "EMAIL_ADDRESS"),
		"<EMAIL_ADDRESS>": "<EMAIL_ADDRESS>",
	} {
		if got := string(c.Restore([]byte(text))); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if got := string(conversation("two").Restore([]byte(name))); got != name {
		t.Errorf("another conversation restored %q", got)
	}
	// A value that looks like a pseudonym is not looked through.
	c.Redact([]byte("postgres://u:" + bare + "@db.example.com/x"))
	if got := string(c.Restore([]byte("no " + name))); got != "no alice@tamshai.com" {
		t.Errorf("got %q", got)
	}
	if _, err := g.NewConversation([]byte("short"), "x"); err == nil {
		t.Error("a short key is accepted")
	}
}

func TestRestoreInPieces(t *testing.T) {
	g := newGuard(t, guard.Policy{Default: guard.Pseudonymise})
	c, err := g.NewConversation(testKey, "one")
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := c.Redact([]byte("alice@tamshai.com"))
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{string(name), strings.ToLower(string(name)), string(name[1:]), string(name[:9]), "<", ">", "_", `\`, "a", "7", " ", "EMAIL_ADDRESS_", strings.Repeat("x", 120)})).Draw(t, "parts")
		text := strings.Join(parts, "")
		want := string(c.Restore([]byte(text)))
		var out bytes.Buffer
		w := c.NewRestorer(&out)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			_, _ = io.WriteString(w, rest[:n])
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("%q: in pieces %q, as a whole %q", text, out.String(), want)
		}
	})
}

func TestRedactJSON(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, tt := range []struct{ doc, want string }{
		{`{"ssn": "219-09-9999"}`, `{"ssn": "<US_SSN>"}`},
		{`{"ssn":219099999,"id":104729385}`, `{"ssn":"<US_SSN>","id":104729385}`},
		{`{"a@b.com":1,"c@d.com":[2]}`, `{"<EMAIL_ADDRESS>":1,"<EMAIL_ADDRESS>#2":[2]}`},
		{`{"password":"hunter2xyz","note":"hunter2xyz"}`, `{"password":"<SECRET>","note":"hunter2xyz"}`},
		{`{"a":{"b":[{"mail":"a@b.com"},"x"]},"k":1,"k":2}`, `{"a":{"b":[{"mail":"<EMAIL_ADDRESS>"},"x"]},"k":1,"k":2}`},
		{`{"args":"{\"ssn\":219099999}"}`, `{"args":"{\"ssn\":\"<US_SSN>\"}"}`},
		{`["4111\u002d1111-1111-1111", "tab\there"]`, `["<CREDIT_CARD>", "tab\there"]`},
		{`"alice@b.com"`, `"<EMAIL_ADDRESS>"`},
		{` {} `, ` {} `},
		{`{"n":` + strings.Repeat("7", 400) + `}`, `{"n":` + strings.Repeat("7", 400) + `}`},
		{`{"phones":["415-555-0132",4155550132]}`, `{"phones":["<PHONE_NUMBER>","<PHONE_NUMBER>"]}`},
	} {
		out, _, err := g.RedactJSON([]byte(tt.doc))
		if err != nil || string(out) != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.doc, out, err, tt.want)
		}
	}
	deep := strings.Repeat("[", 9999) + `"a@b.com"` + strings.Repeat("]", 9999)
	if out, _, err := g.RedactJSON([]byte(deep)); err != nil || !bytes.Contains(out, []byte("<EMAIL_ADDRESS>")) {
		t.Errorf("a document of 9,999 levels: %v", err)
	}
	for name, doc := range map[string]string{"too deep": strings.Repeat("[", 10001) + strings.Repeat("]", 10001), "cut off": `{"a":`, "gzip": "\x1f\x8b\x08\x00", "empty": "", "two": "{} {}"} {
		if out, _, err := g.RedactJSON([]byte(doc)); !errors.Is(err, guard.ErrNotJSON) || out != nil {
			t.Errorf("%s: got %.20q, %v", name, out, err)
		}
	}
}

func FuzzRedactJSON(f *testing.F) {
	for _, doc := range []string{`{"ssn":219099999}`, `{"a@b.com":"4111111111111111","x":[1.5e9,null,true,"{\"password\":\"hunter2xyz\"}"]}`, `"\ud800 219-09-9999"`, `[[[[]]]]`} {
		f.Add([]byte(doc))
	}
	g := newGuard(f, guard.Policy{Default: guard.Pseudonymise})
	c, err := g.NewConversation(testKey, "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		out, _, err := c.RedactJSON(doc)
		if json.Valid(doc) != (err == nil) {
			t.Fatalf("%q: %v", doc, err)
		}
		if err == nil && !json.Valid(out) {
			t.Fatalf("%q became %q", doc, out)
		}
	})
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte("<EMAIL_ADDRESS_bcdfghjklmnpqrst> x"), 3)
	g := newGuard(f, guard.Policy{Default: guard.Pseudonymise})
	c, err := g.NewConversation(testKey, "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		want := c.Restore(text)
		if !bytes.Equal(want, text) {
			t.Fatalf("%q became %q, and nothing was pseudonymised", text, want)
		}
		var out bytes.Buffer
		w := c.NewRestorer(&out)
		cut = min(max(cut, 0), len(text))
		_, _ = w.Write(text[:cut])
		_, _ = w.Write(text[cut:])
		if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("in pieces %q, %v", out.Bytes(), err)
		}
	})
}

// Models write brackets as the place wants it, and the value has to fit there too.
func TestRestoreEscaped(t *testing.T) {
	g := newGuard(t, guard.Policy{Default: guard.Pseudonymise, Entities: []string{"SECRET"}})
	c, err := g.NewConversation(testKey, "one")
	if err != nil {
		t.Fatal(err)
	}
	doc, _, err := c.RedactJSON([]byte(`{"password":"a&b <\"c\"> 9"}`))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Trim(string(doc[len(`{"password":"`):len(doc)-2]), "<>")
	for in, want := range map[string]string{
		"<NAME>":                         `a&b <"c"> 9`,
		"x<NAME>":                        `xa&b <"c"> 9`,
		"https://x/?q=%3CNAME%3E&r=1":    `https://x/?q=a%26b+%3C%22c%22%3E+9&r=1`,
		"https://x/?q=%3cNAME%3e":        `https://x/?q=a%26b+%3C%22c%22%3E+9`,
		"<b>&lt;NAME&gt;</b>":            `<b>a&amp;b &lt;&#34;c&#34;&gt; 9</b>`,
		`{"x":"\u003cNAME\u003e"}`:       `{"x":"a&b <\"c\"> 9"}`,
		`{"x":"y\u003CNAME\u003E\n"}`:    `{"x":"ya&b <\"c\"> 9\n"}`,
		"%3CNAME>":                       `%3Ca&b <"c"> 9>`,
		"<NAME":                          `<a&b <"c"> 9`,
		"NAME%3E":                        `a&b <"c"> 9%3E`,
		"50% NAME & NAME \\ NAME":        `50% a&b <"c"> 9 & a&b <"c"> 9 \ a&b <"c"> 9`,
		"%3CNAMEx%3E %3 &l \\u003 <NAME": `%3CNAMEx%3E %3 &l \u003 <a&b <"c"> 9`,
	} {
		in = strings.ReplaceAll(in, "NAMEx", name+"x")
		want = strings.ReplaceAll(want, "NAMEx", name+"x")
		in = strings.ReplaceAll(in, "NAME", name)
		if got := string(c.Restore([]byte(in))); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
		for cut := range len(in) {
			var out bytes.Buffer
			w := c.NewRestorer(&out)
			for _, piece := range []string{in[:cut], in[cut:]} {
				if _, err := io.WriteString(w, piece); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil || out.String() != want {
				t.Errorf("%s, cut at %d, became %s, want %s", in, cut, &out, want)
			}
		}
	}
}

// Nobody who sees the pseudonyms of two conversations can tell that they are of one value.
func TestPseudonymsDiffer(t *testing.T) {
	g := newGuard(t, guard.Policy{Default: guard.Pseudonymise})
	seen := map[string]string{}
	for _, name := range []struct{ key, id string }{{"0123456789abcdef", "one"}, {"0123456789abcdef", "two"}, {"fedcba9876543210", "one"}} {
		c, err := g.NewConversation([]byte(name.key), name.id)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := c.Redact([]byte("alice@tamshai.com"))
		again, _, _ := c.Redact([]byte("alice@tamshai.com"))
		if other, taken := seen[string(first)]; taken || string(again) != string(first) {
			t.Errorf("%v has %s, then %s; and so has %s", name, first, again, other)
		}
		seen[string(first)] = name.key + " " + name.id
	}
}
