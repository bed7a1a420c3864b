package guard_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// dense is text with something personal in every other sentence.
func dense() []byte {
	rnd := rand.New(rand.NewPCG(7, 7))
	digits := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte('0' + byte(rnd.IntN(10)))
		}
		return b.String()
	}
	var b bytes.Buffer
	for b.Len() < 1<<20 {
		switch rnd.IntN(9) {
		case 0:
			fmt.Fprintf(&b, "How do I change the address linked to my credit card to %s Västergärde %s\n Suite %s\n ANGERED\n Mali %s?\n", digits(2), digits(2), digits(3), digits(5))
		case 1:
			fmt.Fprintf(&b, "My card 4111 1111 1111 1111 was declined at the Bahnhofstraße, what should I do now?\n")
		case 2:
			fmt.Fprintf(&b, "She was born on %d/%d/19%s. Her maiden name is Ångström.\n", 1+rnd.IntN(12), 1+rnd.IntN(28), digits(2))
		case 3:
			fmt.Fprintf(&b, "His social security number is 2%s-1%s-%s and he moved from Perugia.\n", digits(2), digits(1), digits(4))
		case 4:
			fmt.Fprintf(&b, "Please write to user%s@example.com, or call (2%s) 5%s-%s x%s.\n", digits(3), digits(2), digits(2), digits(4), digits(3))
		case 5:
			fmt.Fprintf(&b, "The server at 10.%d.%d.%d refused, see https://www.example.org/%s for more.\n", rnd.IntN(255), rnd.IntN(255), rnd.IntN(255), digits(4))
		default:
			b.WriteString("One of the most depressing songs on the list, and nobody at the company knew who had asked for it.\n")
		}
	}
	return b.Bytes()
}

// sparse is the comments of Go's standard library.
func sparse(tb testing.TB) []byte {
	tb.Helper()
	var b []byte
	err := filepath.WalkDir(filepath.Join(runtime.GOROOT(), "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || len(b) > 4<<20 {
			return err
		}
		text, err := os.ReadFile(path)
		for line := range bytes.Lines(text) {
			if t := bytes.TrimSpace(line); bytes.HasPrefix(t, []byte("// ")) {
				b = append(append(b, t[3:]...), '\n')
			}
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// BenchmarkGuard measures a scan and a stream in chunks of 64 bytes, beside six
// patterns of the standard library's regexp and a loop that looks at each byte.
func BenchmarkGuard(b *testing.B) {
	g := newGuard(b, guard.Policy{})
	patterns := []*regexp.Regexp{
		regexp.MustCompile(`\b\d{3}-\d{2}-\d{4}\b`), regexp.MustCompile(`\b(?:\d[ -]?){13,19}\b`), regexp.MustCompile(`\b[\w.+-]+@[\w-]+\.[\w.-]+\b`),
		regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3}\b`), regexp.MustCompile(`\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b`), regexp.MustCompile(`\(?\d{3}\)?[ -]?\d{3}-\d{4}\b`),
	}
	for name, text := range map[string][]byte{"dense": dense(), "sparse": sparse(b)} {
		measure := func(what string, f func()) {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
		measure("loop", func() {
			n := 0
			for _, c := range text {
				if c >= '0' && c <= '9' || c == '@' {
					n++
				}
			}
		})
		measure("scan", func() { g.Scan(text) })
		measure("stream64", func() {
			w := g.NewWriter(io.Discard)
			for rest := text; len(rest) > 0; rest = rest[min(64, len(rest)):] {
				_, _ = w.Write(rest[:min(64, len(rest))])
			}
			_ = w.Close()
		})
		measure("regexp", func() {
			for _, p := range patterns {
				p.FindAllIndex(text, -1)
			}
		})
	}
}
