// Package guard_test measures the guard beside regular expressions: those of the
// standard library, and go-re2, which is RE2 as WebAssembly. It is a module of its
// own, so that neither enters Phoenix.
package guard_test

import (
	"bytes"
	"flag"
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
	"time"

	re2 "github.com/wasilibs/go-re2"

	"github.com/tamshai/phoenix/guard"
)

var (
	rounds = flag.Int("rounds", 10, "rounds, in which the contestants take turns")
	file   = flag.String("text", "", "a file to measure in place of the dense text")
)

// dense is text with something personal in every other sentence.
func dense(tb testing.TB) []byte {
	tb.Helper()
	if *file != "" {
		text, err := os.ReadFile(*file)
		if err != nil {
			tb.Fatal(err)
		}
		return text
	}
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
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || len(b) > 1<<20 {
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

// patterns are six that many gateways start with.
var patterns = []string{
	`\b\d{3}-\d{2}-\d{4}\b`, `\b(?:\d[ -]?){13,19}\b`, `\b[\w.+-]+@[\w-]+\.[\w.-]+\b`,
	`\b\d{1,3}(?:\.\d{1,3}){3}\b`, `\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b`, `\(?\d{3}\)?[ -]?\d{3}-\d{4}\b`,
}

// contestant does to a text what is measured.
type contestant struct {
	name string
	do   func(text []byte)
}

// sink keeps the floor from being optimised away.
var sink int

func contestants(tb testing.TB) []contestant {
	tb.Helper()
	g, err := guard.New(guard.Policy{})
	if err != nil {
		tb.Fatal(err)
	}
	var class [256]uint8
	for _, c := range "0123456789@" {
		class[c] = 1
	}
	var plain []*regexp.Regexp
	var fast []*re2.Regexp
	for _, p := range patterns {
		plain, fast = append(plain, regexp.MustCompile(p)), append(fast, re2.MustCompile(p))
	}
	joined := re2.MustCompile(strings.Join(patterns, "|"))
	return []contestant{
		{"floor", func(text []byte) { // one look at each byte
			for _, c := range text {
				sink += int(class[c])
			}
		}},
		{"scan", func(text []byte) { g.Scan(text) }},
		{"stream64", func(text []byte) {
			w := g.NewWriter(io.Discard)
			for rest := text; len(rest) > 0; rest = rest[min(64, len(rest)):] {
				_, _ = w.Write(rest[:min(64, len(rest))])
			}
			_ = w.Close()
		}},
		{"re2-joined", func(text []byte) { joined.FindAllIndex(text, -1) }},
		{"re2-six", func(text []byte) {
			for _, p := range fast {
				p.FindAllIndex(text, -1)
			}
		}},
		{"regexp-six", func(text []byte) {
			for _, p := range plain {
				p.FindAllIndex(text, -1)
			}
		}},
	}
}

// BenchmarkGuard has the contestants take turns over pieces of a text on one
// core, and reports the sum of each one's best times: what others do on the
// machine meanwhile is hardly in it.
func BenchmarkGuard(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	all := contestants(b)
	for name, text := range map[string][]byte{"dense": dense(b), "sparse": sparse(b)} {
		b.Run(name, func(b *testing.B) {
			const size = 256 << 10
			var pieces [][]byte
			for rest := text; len(rest) > 0 && len(pieces) < 4; rest = rest[min(size, len(rest)):] {
				pieces = append(pieces, rest[:min(size, len(rest))])
			}
			for b.Loop() {
				measure(b, all, pieces)
			}
		})
	}
}

func measure(b *testing.B, all []contestant, pieces [][]byte) {
	best := make([][]time.Duration, len(all))
	for i := range best {
		best[i] = make([]time.Duration, len(pieces))
	}
	for round := range *rounds {
		for i, c := range all {
			runtime.GC() // nobody pays for another's garbage, or for cold caches
			c.do(pieces[0])
			for k, piece := range pieces {
				start := time.Now()
				c.do(piece)
				if d := time.Since(start); round == 0 || d < best[i][k] {
					best[i][k] = d
				}
			}
		}
	}
	for i, c := range all {
		var size int
		var took time.Duration
		for k, piece := range pieces {
			size, took = size+len(piece), took+best[i][k]
		}
		b.ReportMetric(float64(size)/1e6/took.Seconds(), c.name+"-MB/s")
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}
