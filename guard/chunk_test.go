package guard_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// texts are what streams are cut in: plain, disguised and broken values, and what
// is easily mistaken for one.
func texts() []string {
	const ssn, card, iban, mail = "219-09-9999", "4111 1111 1111 1111", "GB29 NWBK 6016 1331 9268 19", "alice.o'hara+x@mail.example.co.uk"
	list := []string{
		"", " ", "\n", "no finding here, at all", "SSN " + ssn + " is on file.", "ssn:" + ssn + "\n", ssn, "x" + ssn, "SSN" + ssn,
		"My card number is " + card + ", thanks", "card 378282246310005 and 5555555555554444", "IBAN " + iban + ".", strings.ToLower(iban),
		"write to " + mail + " or bob@tamshai.com.", "call (415) 555-0132 x506 or +44 20 7946 0958 today", "They're not answering at 97 111421",
		"from 192.168.1.1 to 2001:db8::1, fe80::1%eth0 or ::ffff:10.0.0.1", "MAC AA-BB-CC-DD-EE-FF", "see https://user:pass@www.example.com/a?b=c#d.",
		"born on March 3, 1980 in Rome; dob 3/23/1940", "Führerscheinnummer: BO12345678A", "Meine Steuer-ID: 12345678903.",
		"api_key = \"Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB\"", "password: hunter2xyz", "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
		"key:\n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nProc-Type: 4,ENCRYPTED\nabc/def+\n-----END RSA PRIVATE KEY-----\nand " + ssn,
		"broken -----BEGIN PRIVATE KEY-----\nMIIEpAIBAAK. And then text, " + ssn,
		"find \"-----BEGIN PRIVATE KEY-----\" alone, " + ssn, "-----BEGIN EC PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE",
		"-----BEGIN PRIVATE KEY-----\nwords upon words " + strings.Repeat("and more ", 40) + ssn, "-----BEGIN%20PRIVATE%20KEY-----%0AMC4CAQAwBQYDK2VwBCIEIA%2B" + " " + ssn,
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2.0.22 (GNU/Linux)\n\nlQOYBFk3T3gBCADF0aV9\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----" + ssn,
		"base64 " + base64.StdEncoding.EncodeToString([]byte("my ssn is "+ssn)) + " ok", "hex " + hex.EncodeToString([]byte(card)) + ".",
		"219%2D09%2D9999 and 219&#45;09&#45;9999 and 219\\u002d09\\u002d9999", "２１９－０９－９９９９ and 2\u200b1\u200b9-09-9999 and 219‑09–9999",
		"2 1 9 - 0 9 - 9 9 9 9 spaced", "<b>219</b>-09-9999", "аlice@exаmple.com", "josé@exämple.fr",
		"Revenue was 1250000 in 2023, order 123456789012, v1.2.3.4, 10:30-11:45", "a1 b2 c3 d4 e5 f6 g7 h8 i9 j10 k11 l12",
		"go to acme•com 12\n(for short) and look around", "12345-6789 550e8400-e29b-41d4-a716-446655440000", "bad \xff\xfe utf8 \xe2\x80 219-09-9999 \xc3", strings.Repeat("9", 400),
		"ends in the middle of 4111 1111 11", "trailing alice@", "日本語のテキスト 090-1234-5678 です", "여권번호는 M789C1234입니다", "{\"ssn\":\"219-09-9999\",\"n\":[1,2]}",
	}
	return append(list, strings.Join(list, " "), strings.Join(list, "\n"))
}

func newGuard(tb testing.TB, p guard.Policy) *guard.Guard {
	tb.Helper()
	g, err := guard.New(p)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// streamed is text redacted in the pieces that cut returns the lengths of.
func streamed(tb testing.TB, g *guard.Guard, text string, cut func(rest int) int) string {
	tb.Helper()
	var out bytes.Buffer
	w := g.NewWriter(&out)
	for rest := text; rest != ""; {
		n := min(max(cut(len(rest)), 1), len(rest))
		if _, err := io.WriteString(w, rest[:n]); err != nil {
			tb.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

func redacted(tb testing.TB, g *guard.Guard, text string) string {
	tb.Helper()
	out, _, err := g.Redact([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return string(out)
}

func differ(tb testing.TB, text, how, got, want string) {
	tb.Helper()
	if got != want {
		tb.Fatalf("%s: the stream differs from the whole\ntext   %.300q\nstream %.300q\nwhole  %.300q", how, text, got, want)
	}
}

func TestStreamEqualsWhole(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, text := range texts() {
		want := redacted(t, g, text)
		for cut := 1; cut < len(text); cut++ {
			first := true
			differ(t, text, fmt.Sprintf("cut at %d", cut), streamed(t, g, text, func(rest int) int {
				if first {
					first = false
					return cut
				}
				return rest
			}), want)
		}
		for _, size := range []int{1, 2, 3, 7, 64} {
			differ(t, text, fmt.Sprintf("pieces of %d", size), streamed(t, g, text, func(int) int { return size }), want)
		}
	}
}

// Texts without a hard break are read in windows.
func TestStreamEqualsWholeWithoutBreaks(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, text := range map[string]string{
		"numbers":   strings.Repeat("12 345 6789 ", 9000),
		"one token": "ghp_" + strings.Repeat("aB3dE5fG7h", 5000),
		"base64":    base64.StdEncoding.EncodeToString([]byte(strings.Repeat("my ssn is 219-09-9999, ok? ", 2000))),
		"quiet":     strings.Repeat("abc ", 20000) + "219-09-9999" + strings.Repeat(" abc", 20000),
		"quiet run": strings.Repeat("x", 50000) + " 219-09-9999 " + strings.Repeat("y", 50000) + "@example.com",
		"greek":     strings.Repeat("α1 ", 10000) + "219-09-9999",
		"pem":       "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("MIIEpAIBAAKCAQEA\n", 5000) + "-----END PRIVATE KEY-----\nalice@example.com",
		"addresses": strings.Repeat("a@example.com,", 5000),
		"ssns":      strings.Repeat("219-09-9999,", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			want := redacted(t, g, text)
			for _, size := range []int{64, 1000, 8192, 16384, 20000} {
				differ(t, name, fmt.Sprintf("pieces of %d", size), streamed(t, g, text, func(int) int { return size }), want)
			}
			differ(t, name, "random pieces", streamed(t, g, text, func(int) int { return rnd.IntN(3000) }), want)
		})
	}
}

func FuzzStream(f *testing.F) {
	for i, text := range texts() {
		f.Add(text, uint64(i))
	}
	g := newGuard(f, guard.Policy{})
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		want := redacted(t, g, text)
		differ(t, text, "random pieces", streamed(t, g, text, func(int) int { return 1 + rnd.IntN(20) }), want)
	})
}
