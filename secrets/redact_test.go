package secrets_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/secrets"
)

const theValue = "correct-horse-battery"

// Whatever holds a secret shows nothing of it, to any verb, logger or encoder,
// however deep it sits.
func TestNothingShowsASecret(t *testing.T) {
	s := secrets.NewString(theValue)
	source := newSource()
	source.put("kv/app", map[string]string{"password": theValue})
	var bound struct {
		Password secrets.Secret `secret:"kv/app#password"`
	}
	store := newStore(t, source, secrets.Config{Into: &bound, Poll: -1})
	watcher, err := store.Watch()
	if err != nil {
		t.Fatal(err)
	}
	derived, err := secrets.Derive(s, func([]byte) (int, error) { return 1, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	var scrubber secrets.Scrubber
	scrubber.Add(s)
	type holder struct {
		Exported any
		hidden   any
	}
	type plain struct {
		Secret secrets.Secret
		secret secrets.Secret
	}
	values := map[string]any{
		"Secret": s, "pointer": &s, "struct": plain{s, s}, "bound struct": bound, "slice": []secrets.Secret{s}, "map": map[string]secrets.Secret{"k": s},
		"Store": store, "Watcher": watcher, "Derived": derived, "Scrubber": &scrubber,
		"Value": secrets.Value{Kind: secrets.Text, Secret: secrets.NewString(theValue)},
		"Data":  secrets.Data{Version: 1, Fields: map[string]secrets.Value{"password": {Kind: secrets.Text, Secret: secrets.NewString(theValue)}}},
		"Lease": secrets.NewLease("db/creds/app", "db/creds/app/1", map[string]secrets.Secret{"password": s}, time.Now(), time.Hour),
		"error": fmt.Errorf("it failed: %v %w", s, &secrets.ReferenceError{Ref: "kv/app#password", Err: errors.New("x")}),
	}
	forms := []string{
		theValue, hex.EncodeToString([]byte(theValue)), strings.ToUpper(hex.EncodeToString([]byte(theValue))),
		base64.StdEncoding.EncodeToString([]byte(theValue))[:16], "99 111 114 114", "63, 0x6f", "0x63",
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%t", "%c", "%U", "%b", "%o", "%e", "%10.3v", "%-20s"} {
				fmt.Fprintf(&out, verb+"\n", v)
				fmt.Fprintf(&out, verb+"\n", holder{Exported: v})
				fmt.Fprintf(&out, verb+"\n", []any{v, &v})
				if name != "Value" && name != "Data" { // plain by design, and only on their way into a Store
					fmt.Fprintf(&out, verb+"\n", holder{hidden: v})
				}
			}
			fmt.Fprint(&out, v)
			fmt.Fprintln(&out, errors.Join(fmt.Errorf("%v", v)))
			for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
				log := slog.New(handler)
				log.Info("x", "v", v)
				log.With("v", v).WithGroup("g").Info("x", slog.Group("h", "v", v))
			}
			data, _ := json.Marshal(v)
			out.Write(data)
			data, _ = json.Marshal(map[string]any{"v": v})
			out.Write(data)
			data, _ = xml.Marshal(v)
			out.Write(data)
			_ = gob.NewEncoder(&out).Encode(v)
			for _, form := range forms {
				if i := strings.Index(out.String(), form); i >= 0 {
					t.Fatalf("it shows as …%q", out.String()[max(0, i-60):i+len(form)])
				}
			}
		})
	}
}

func TestSecretGivesItsValueWhenAsked(t *testing.T) {
	s := secrets.NewString(theValue)
	b := s.Bytes()
	b[0] = 'X'
	if s.Reveal() != theValue {
		t.Error("what Bytes returned was no copy")
	}
	if !s.Equal(secrets.New([]byte(theValue))) || s.Equal(secrets.NewString("other")) || s.IsZero() || s.Version() != 0 {
		t.Error("Equal, IsZero or Version is wrong")
	}
	var zero secrets.Secret
	if !zero.IsZero() || zero.Bytes() != nil || zero.Reveal() != "" || zero.String() != secrets.Redacted {
		t.Error("the zero Secret is not empty")
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(s); err == nil {
		t.Error("gob encoded it")
	}
}

// No spelling of a value survives, wherever it stands.
func TestScrubberFindsEverySpelling(t *testing.T) {
	spell := map[string]func(string) string{
		"plain":      func(s string) string { return s },
		"JSON":       func(s string) string { b, _ := json.Marshal(s); return string(b) },
		"query":      url.QueryEscape,
		"path":       url.PathEscape,
		"hex":        func(s string) string { return hex.EncodeToString([]byte(s)) },
		"HEX":        func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
		"base64":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64 URL": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
		"in base64":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte("a" + s + "bc")) },
		"in base64+": func(s string) string { return base64.StdEncoding.EncodeToString([]byte("ab" + s + "c")) },
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringOfN(rapid.RuneFrom([]rune("abcXYZ019-_/+=<>&\"'\\ é🙂\n\t\b\x01\x7f\u2028\ufffd")), 12, 40, -1).Draw(t, "value")
		before, after := rapid.StringN(0, 20, -1).Draw(t, "before"), rapid.StringN(0, 20, -1).Draw(t, "after")
		var s secrets.Scrubber
		s.Add(secrets.NewString("another-value"), secrets.NewString(value))
		for name, f := range spell {
			form := f(value)
			core := strings.Trim(form, `"`)
			if strings.HasPrefix(name, "in base64") {
				core = form[4 : len(form)-8]
			}
			if name == "base64" {
				core = strings.TrimRight(form, "=")
				core = core[:len(core)-1]
			}
			got := s.Scrub(before + form + after)
			if strings.Contains(got, core) && !strings.Contains(before+secrets.Redacted+after, core) {
				t.Fatalf("%s: %q is left in %q", name, core, got)
			}
		}
	})
}

func TestScrubber(t *testing.T) {
	var s secrets.Scrubber
	if got := s.Scrub("nothing known"); got != "nothing known" {
		t.Error(got)
	}
	long, short := secrets.NewString("abcdefgh"), secrets.NewString("abc")
	s.Add(long, short, long, secrets.Secret{})
	if got := s.Scrub("abc abcdefgh"); got != "abc "+secrets.Redacted {
		t.Errorf("a short value makes texts unreadable: %q", got)
	}
	s.Remove(long)
	if got := s.Scrub("abcdefgh"); got != "abcdefgh" {
		t.Errorf("forgotten, but %q", got)
	}
	// Bytes that are no text are written by JSON as marks of what is missing.
	odd := "pass\xffword\ufffd<"
	s.Add(secrets.NewString(odd), secrets.NewString("password"))
	quoted, _ := json.Marshal(odd)
	if got := s.Scrub(string(quoted) + " passport password"); got != `"`+secrets.Redacted+`" passport `+secrets.Redacted {
		t.Errorf("broken text: %q", got)
	}
	// Where values overlap, none leaves a rest.
	s.Add(secrets.NewString("overlap-lapped"), secrets.NewString("lapped-over"), secrets.NewString("lapped"))
	if got := s.Scrub("<overlap-lapped-over>lappedlapped"); got != "<"+secrets.Redacted+">"+secrets.Redacted+secrets.Redacted {
		t.Errorf("overlapping: %q", got)
	}
	// What is wiped may still stand in a text.
	wiped := secrets.NewString("wiped-away")
	s.Add(wiped)
	wiped.Wipe()
	if got := s.Scrub("wiped-away"); got != secrets.Redacted {
		t.Errorf("wiped, but %q", got)
	}
}

// A value is in one place, whoever holds it; Wipe empties all copies, but not a
// Store's.
func TestWipe(t *testing.T) {
	s := secrets.NewString(theValue)
	other := s
	s.Wipe()
	if !other.IsZero() || other.Reveal() != "" || len(other.AppendTo(nil)) != 0 {
		t.Error("a copy still has the value")
	}
	source := newSource()
	source.put("kv/app", map[string]string{"password": theValue})
	store := newStore(t, source, secrets.Config{Secrets: []string{"kv/app#password"}, Poll: -1})
	live, _ := store.Secret("kv/app#password")
	live.Wipe()
	secrets.Secret{}.Wipe()
	if string(live.AppendTo([]byte("a "))) != "a "+theValue {
		t.Error("the Store's value is gone")
	}
}
