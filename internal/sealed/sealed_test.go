package sealed_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/secrets"
)

// identity makes a key: the name of its file, and its recipient.
func identity(t *testing.T) (file, recipient string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key.txt")
	text := "# created: now\n# public key: " + id.Recipient().String() + "\n" + id.String() + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, id.Recipient().String()
}

func Example() {
	id, _ := age.GenerateX25519Identity()
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	keyFile := filepath.Join(dir, "key.txt")
	_ = os.WriteFile(keyFile, []byte(id.String()), 0o600)

	plain, _ := sealed.FormatEnv([]sealed.Var{{Name: "VAULT_MCP_HR_SECRET_ID", Value: secrets.NewString("only-once")}})
	data, _ := sealed.Seal(plain, []string{id.Recipient().String()})
	vars, err := sealed.Open(data, keyFile)
	fmt.Println(len(vars), vars["VAULT_MCP_HR_SECRET_ID"], err)
	// Output: 1 [redacted] <nil>
}

func TestSealForSeveral(t *testing.T) {
	oneFile, one := identity(t)
	twoFile, two := identity(t)
	otherFile, _ := identity(t)
	data, err := sealed.Seal([]byte("A='s3cr3t value'\n"), []string{one, two})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN AGE")) || bytes.Contains(data, []byte("s3cr3t")) {
		t.Errorf("sealed: %q", data)
	}
	for _, file := range []string{oneFile, twoFile} {
		vars, err := sealed.Open(data, file)
		if err != nil || vars["A"].Reveal() != "s3cr3t value" {
			t.Errorf("%v, %d variables", err, len(vars))
		}
	}
	if _, err := sealed.Open(data, otherFile); !errors.Is(err, sealed.ErrNoMatch) {
		t.Errorf("got %v", err)
	}
}

func TestPostQuantum(t *testing.T) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(file, []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := sealed.Seal([]byte("A=b\n"), []string{id.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	if vars, err := sealed.Open(data, file); err != nil || vars["A"].Reveal() != "b" {
		t.Errorf("%v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	file, good := identity(t)
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	secret := string(key[bytes.Index(key, []byte("AGE-SECRET")):])
	other := "x"
	if strings.HasSuffix(good, other) {
		other = "y"
	}
	for name, tt := range map[string]struct {
		plain      []byte
		recipients []string
		want       error
	}{
		"nobody":         {nil, nil, sealed.ErrRecipient},
		"a typing error": {nil, []string{good, good[:len(good)-1] + other}, sealed.ErrRecipient},
		"two in one":     {nil, []string{good + "\n" + good}, sealed.ErrRecipient},
		"a secret key":   {nil, []string{strings.TrimSpace(secret)}, sealed.ErrRecipient},
		"nothing":        {nil, []string{""}, sealed.ErrRecipient},
		"too much":       {make([]byte, sealed.MaxSize+1), []string{good}, sealed.ErrTooLarge},
	} {
		_, err := sealed.Seal(tt.plain, tt.recipients)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file, recipient := identity(t)
	good, err := sealed.Seal([]byte("A=s3cr3t-value\n"), []string{recipient})
	if err != nil {
		t.Fatal(err)
	}
	noEnv, err := sealed.Seal([]byte("s3cr3t-value without a name"), []string{recipient})
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.txt")
	if err := os.WriteFile(bad, []byte("AGE-SECRET-KEY-1MISTYPED"), 0o600); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-50] ^= 1 // in the payload
	for name, tt := range map[string]struct {
		data     []byte
		identity string
		want     error
	}{
		"empty":            {nil, file, sealed.ErrNotSealed},
		"plain":            {[]byte("A=s3cr3t-value\n"), file, sealed.ErrNotSealed},
		"truncated":        {good[:len(good)-60], file, sealed.ErrNotSealed},
		"changed":          {flipped, file, sealed.ErrNotSealed},
		"too large":        {make([]byte, 3*sealed.MaxSize), file, sealed.ErrTooLarge},
		"not an env file":  {noEnv, file, sealed.ErrSyntax},
		"no identity file": {good, file + "x", os.ErrNotExist},
		"a bad identity":   {good, bad, sealed.ErrRecipient},
		"a folder":         {good, filepath.Dir(file), sealed.ErrRecipient},
	} {
		vars, err := sealed.Open(tt.data, tt.identity)
		if !errors.Is(err, tt.want) || vars != nil {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "MISTYPED")) {
			t.Errorf("%s: the error shows what is secret: %v", name, err)
		}
	}
}

func TestParseEnv(t *testing.T) {
	good := map[string]string{
		"A=":                   "",
		"A=b":                  "b",
		"A=b=c":                "b=c",
		"A='b c$\"d\\'":        "b c$\"d\\",
		`A="b\n\t\"\\\$"`:      "b\n\t\"\\$",
		"A=''":                 "",
		"\n# comment\n\nA=b\n": "b",
		"A=é":                  "é",
	}
	for text, want := range good {
		vars, err := sealed.ParseEnv([]byte(text))
		if err != nil || len(vars) != 1 || vars["A"].Reveal() != want {
			t.Errorf("%q: %v, got %q, want %q", text, err, vars["A"].Reveal(), want)
		}
	}
	bad := map[string]string{
		"s3cr3t":          "line 1: it has no =",
		"A=b\n=s3cr3t":    "line 2: what stands before =",
		"A =s3cr3t":       "what stands before =",
		"1A=s3cr3t":       "what stands before =",
		"export A=s3cr3t": "begins with export",
		"A=b\nA=s3cr3t":   "line 2: the name stands in the file a second time",
		"A=s3cr3t x":      "single quotes",
		"A=s3cr3t # x":    "single quotes",
		"A=$s3cr3t":       "single quotes",
		"A=s3'cr3t":       "single quotes",
		"A='s3cr3t":       "do not close",
		"A='s3cr3t'x":     "do not close",
		"A='":             "do not close",
		"A='s3'cr3t'":     "use double ones",
		`A="s3"cr3t"`:     `write \"`,
		`A="$s3cr3t"`:     `write \$`,
		`A="s3cr3t\"`:     "backslash that is not part",
		`A="s3cr3t\x"`:    "backslash that is not part",
		"A=s3cr3t\r\n":    "carriage return",
		"A=s3cr3t\x00":    "control character",
		"A=s3cr3t\xff":    "UTF-8",
	}
	for text, want := range bad {
		_, err := sealed.ParseEnv([]byte(text))
		if !errors.Is(err, sealed.ErrSyntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3") {
			t.Errorf("%q: the error quotes it: %v", text, err)
		}
	}
	if _, err := sealed.ParseEnv(make([]byte, sealed.MaxSize+1)); !errors.Is(err, sealed.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// Whatever FormatEnv writes, ParseEnv reads back.
func TestFormatEnvRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_]{0,9}`), 0, 5, rapid.ID).Draw(t, "names")
		var vars []sealed.Var
		want := map[string]string{}
		for _, name := range names {
			value := rapid.StringMatching(`[ -~éß\n\r\t'"\\$#]{0,20}`).Draw(t, "value")
			vars = append(vars, sealed.Var{Name: name, Value: secrets.NewString(value)})
			want[name] = value
		}
		text, err := sealed.FormatEnv(vars)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sealed.ParseEnv(text)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: %v", text, err)
		}
		for name, value := range want {
			if got[name].Reveal() != value {
				t.Errorf("%q became %q", value, got[name].Reveal())
			}
		}
	})
}

func TestFormatEnvRefuses(t *testing.T) {
	value := secrets.NewString("v")
	for _, vars := range [][]sealed.Var{
		{{Name: "", Value: value}}, {{Name: "A B", Value: value}}, {{Name: "A=", Value: value}},
		{{Name: "A", Value: value}, {Name: "A", Value: value}},
		{{Name: "A", Value: secrets.NewString("\x00")}}, {{Name: "A", Value: secrets.NewString("\xff")}},
	} {
		if _, err := sealed.FormatEnv(vars); err == nil {
			t.Errorf("%v: no error", vars)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	for _, seed := range []string{"A=b\n", "A='b c'\n# x\n", `A="\n\$"`, "A=\"\\", "=", "\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		vars, err := sealed.ParseEnv(data)
		if err != nil {
			if !errors.Is(err, sealed.ErrSyntax) {
				t.Errorf("got %v", err)
			}
			return
		}
		var list []sealed.Var
		for name, value := range vars {
			list = append(list, sealed.Var{Name: name, Value: value})
		}
		text, err := sealed.FormatEnv(list)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := sealed.ParseEnv(text)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range vars {
			if !again[name].Equal(value) {
				t.Errorf("%s changed", name)
			}
		}
	})
}
