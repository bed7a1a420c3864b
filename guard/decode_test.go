package guard_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode"

	"github.com/tamshai/phoenix/guard"
)

// Escapes and encodings of which a program behind undoes one or more.
func TestDecodings(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	code := func(format string) func(string) string {
		return func(s string) string { return each(s, "", func(c byte) string { return fmt.Sprintf(format, c) }) }
	}
	apart := func(format, between string) func(string) string {
		return func(s string) string {
			return each(s, between, func(c byte) string { return fmt.Sprintf(format, c) })
		}
	}
	packed := func(pack func(io.Writer) io.WriteCloser) func(string) string {
		return func(s string) string {
			var b bytes.Buffer
			w := pack(&b)
			if _, err := io.WriteString(w, "note "+s+", please"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return base64.StdEncoding.EncodeToString(b.Bytes())
		}
	}
	wide := func(order unicode.Endianness) func(string) string {
		return func(s string) string {
			all, err := unicode.UTF16(order, unicode.IgnoreBOM).NewEncoder().String(s)
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
	}
	for name, write := range map[string]func(string) string{
		"quoted-printable":          code("=%02X"),
		"percent, three times":      code("%%2525%02X"),
		`\x{}`:                      code(`\x{%x}`),
		`\o{}`:                      code(`\o{%o}`),
		`\N{U+}`:                    code(`\N{U+%04X}`),
		"style sheets, six digits":  code(`\%06x`),
		"style sheets, four digits": code(`\%04x `),
		"binary":                    code("%08b"),
		"binary, apart":             apart("%08b", " "),
		"hex with points":           apart("%02x", "."),
		"hex with bars":             apart("%02x", "|"),
		"hex with slashes":          apart("%02x", "/"),
		"hex of UTF-16":             func(s string) string { return hex.EncodeToString([]byte(wide(unicode.BigEndian)(s))) },
		"base64 of UTF-16":          func(s string) string { return base64.StdEncoding.EncodeToString([]byte(wide(unicode.BigEndian)(s))) },
		"base32 in small letters":   func(s string) string { return strings.ToLower(base32.StdEncoding.EncodeToString([]byte(s))) },
		"gzip":                      packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		"zlib":                      packed(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }),
		"blanks of Braille":         func(s string) string { return each(s, "\u2800", func(c byte) string { return string(rune(c)) }) },
	} {
		for label, value := range map[string]string{"US_SSN": "268-32-0504", "CREDIT_CARD": "4929 3600 0381 1724", "EMAIL_ADDRESS": "nora.b@example.com"} {
			v := write(value)
			text := "Please note " + v + " for later."
			if got := found(g, text); len(got) != 1 || !strings.HasPrefix(got[0], label+" ") || !strings.HasPrefix(label+" "+v, strings.TrimRight(got[0], " ")) || len(got[0])+3 < len(label+" "+v) {
				t.Errorf("%s: %q: %q, want %s", name, text, got, label)
			}
			whole := redacted(t, g, text)
			for _, size := range []int{1, 5, 13} {
				differ(t, text, name, streamed(t, g, text, func(int) int { return size }), whole)
			}
		}
	}
	checkFound(t, g, "EMAIL_ADDRESS", "write to «nora=40example.com», please")
	checkFound(t, g, "US_SSN", "the number «268=2D32=2D0504», please")
	checkFound(t, g, "CREDIT_CARD", "the number «4929=203600=200381=201724», please")
	checkFound(t, g, "PHONE_NUMBER", "the number «(926)=20970-4079», please")
	// What unpacks to more than there is room for is read as far as that goes.
	bomb := packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })("my SSN is 268-32-0504 " + strings.Repeat("and so on ", 1<<20))
	if len(bomb) > 100<<10 {
		t.Fatal("it does not compress")
	}
	if got := g.Scan([]byte(bomb)); len(got) == 0 {
		t.Error("what is at the beginning of something long is not found")
	}
	for _, text := range []string{"rows=42 size=428643667 offset=373931298847654", "a=30&b=31", `C:\1234 and \09`, "USPS 9400 5513 6667 1068 4620 83", "the book has ISBN 978-0-2327-6787-9"} {
		if got := found(g, text); len(got) != 0 {
			t.Errorf("%q: %q", text, got)
		}
	}
}
