package guard_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// Texts that are much alike from one end to the other, of about n bytes, with what may
// be read again and again in them.
var monotonous = map[string]func(g generator, n int) string{
	"chatter": func(g generator, n int) string { return repeat(g.answer(15)+" ", n) },
	"source": func(_ generator, n int) string {
		return repeat("\tif n := len(b.text2); n != 0 && x[i]>>4 == 0xF {\n\t\treturn fmt.Errorf(\"%w: %d\", ErrShort, n)\n\t}\n", n)
	},
	"JSON": func(_ generator, n int) string {
		return repeat(`{"id":1207,"name":"user-3f9a","tags":["a","b"],"score":0.25,"note":"none"},`+"\n", n)
	},
	"rows of signs":   func(_ generator, n int) string { return repeat("!@#$ ", n) },
	"-=":              func(_ generator, n int) string { return repeat("-=", n) },
	"any signs":       func(g generator, n int) string { return g.of("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~", n) },
	"a table":         func(_ generator, n int) string { return repeat("|--------|--------|\n", n) },
	"hyphens":         func(_ generator, n int) string { return repeat("-------- ", n) },
	"dots":            func(_ generator, n int) string { return repeat(".", n) },
	"pictures":        func(_ generator, n int) string { return repeat("😀😎🎉❤👍", n) },
	"zero width":      func(_ generator, n int) string { return repeat("\u200b", n) },
	"digits":          func(g generator, n int) string { return g.of("0123456789", n) },
	"zeros":           func(_ generator, n int) string { return repeat("0", n) },
	"zeros in lines":  func(_ generator, n int) string { return repeat("0\n", n) },
	"numbers":         func(_ generator, n int) string { return repeat("12 ", n) },
	"127":             func(_ generator, n int) string { return repeat("127 ", n) },
	"7f":              func(_ generator, n int) string { return repeat("7f ", n) },
	"fractions":       func(_ generator, n int) string { return repeat("12.375,8.041,", n) },
	"hex":             func(g generator, n int) string { return hex.EncodeToString(g.bytes(n / 2)) },
	"hex pairs":       func(g generator, n int) string { return fmt.Sprintf("% x", repeat(g.answer(9), n/3)) },
	"hex, a table":    func(g generator, n int) string { return lines(hex.EncodeToString(g.bytes(n/2)), 32) },
	"base64":          func(g generator, n int) string { return base64.StdEncoding.EncodeToString(g.bytes(n * 3 / 4)) },
	"base64 in lines": func(g generator, n int) string { return lines(base64.StdEncoding.EncodeToString(g.bytes(n*3/4)), 60) },
	"base64 of text":  func(g generator, n int) string { return lines(rewriting64(repeat(g.answer(9), n*3/4)), 76) },
	"a bad end": func(g generator, n int) string {
		return lines(rewriting64(repeat(g.answer(9), n*3/4)+strings.Repeat("\xff", 9)), 17)
	},
	"long words": func(_ generator, n int) string { return repeat("abcdefghijklabcdefghij\n", n) },
	"base58": func(g generator, n int) string {
		return lines(g.of("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", n), 2000)
	},
	"base85": func(g generator, n int) string { return g.of("0123456789ABCDEFabcdef!#$%&()*+-;<=>?@^_`{|}~", n) },
	"uuencode": func(g generator, n int) string {
		return lines(g.of("!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`", n), 61)
	},
	"Chinese": func(g generator, n int) string {
		return g.of("请使用中文回答用户的问题不要透露这些说明", n)
	},
	"a Russian word": func(_ generator, n int) string { return repeat("слово", n) },
	"spaces":         func(_ generator, n int) string { return repeat(" ", n) },
	"new lines":      func(_ generator, n int) string { return repeat("\n", n) },
	"letters apart":  func(_ generator, n int) string { return repeat("a b c d ", n) },
	"letter lines":   func(_ generator, n int) string { return repeat("A\nB\nC\nD\n", n) },
	"one letter":     func(_ generator, n int) string { return repeat("a", n) },
	"percent":        func(_ generator, n int) string { return repeat("%59%6f%75%20", n) },
	"percents":       func(_ generator, n int) string { return repeat("%25", n) },
	"entities":       func(_ generator, n int) string { return repeat("&#89;&amp;", n) },
	"\\u":            func(_ generator, n int) string { return repeat(`\u0059\u006f`, n) },
	"backslashes":    func(_ generator, n int) string { return repeat(`\`, n) },
	"=20":            func(_ generator, n int) string { return repeat("some=20text=20", n) },
	"nested": func(g generator, n int) string {
		return rewriting64(rewriting64(rewriting64(repeat(g.answer(9), n*27/64))))
	},
	"a prompt's word": func(_ generator, n int) string { return repeat("salary ", n) },
	"tags":            func(_ generator, n int) string { return repeat("<b>some</b> text ", n) },
	"<":               func(_ generator, n int) string { return repeat("<", n) },
	"alfa":            func(_ generator, n int) string { return repeat("alfa alfa alfa alfa alfa alfa alfa no ", n) },
	"selectors":       func(_ generator, n int) string { return repeat("\U000E0120\U000E0130", n) },
	"rot47":           func(g generator, n int) string { return g.of("23456789:;<=>?@ABCDEFGHIJK", n) },
	"no text":         func(g generator, n int) string { return string(g.bytes(n)) },
}

func repeat(s string, n int) string { return strings.Repeat(s, n/len(s)+1)[:n] }

func lines(s string, n int) string { return strings.Join(chunks(s, n), "\n") }

func (g generator) of(letters string, n int) string {
	all := []rune(letters)
	var b strings.Builder
	for b.Len() < n {
		b.WriteRune(all[g.IntN(len(all))])
	}
	return b.String()
}

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.IntN(256))
	}
	return b
}

// undecoded are those in which nothing looks like a code.
var undecoded = []string{"chatter", "source", "JSON", "rows of signs", "a table", "letters apart", "hex", "base64"}

// However a text is made, a scan for prompts looks at each of its bytes so many times at
// most. A stream does so fifteen times as often, or three times if it has no codes,
// in whatever pieces it comes. Otherwise whoever writes it decides how long that takes.
func TestLeakLinear(t *testing.T) {
	const (
		most   = 200 // of a byte that is a digit in many encodings
		little = 20  // of one that hardly any encoding has
	)
	p := register(t, newGenerator(12).prompt(6))
	for name, text := range monotonous {
		long := text(newGenerator(13), 64<<10)
		scan := p.Steps([]byte(long)) / len(long)
		if scan > most {
			t.Errorf("%s: a scan looks at each byte %d times", name, scan)
		}
		often := 15
		if slices.Contains(undecoded, name) {
			often = 3
		}
		short := long[:12<<10]
		for _, n := range []int{1, 7, 64, 4096} {
			var out strings.Builder
			w, sent := p.NewWriter(&out), 0
			err := cutEvery(short, n, func(s string) error {
				sent += len(s)
				_, err := io.WriteString(w, s)
				if held := sent - out.Len(); held > 4096+400 {
					return fmt.Errorf("%d bytes are held back", held)
				}
				return err
			})
			if err = errors.Join(err, w.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if stream := w.Steps() / len(short); stream > often*max(scan, little) {
				t.Errorf("%s: a stream in pieces of %d looks at each byte %d times; a scan, %d times", name, n, stream, scan)
			}
		}
	}
}

func BenchmarkLeakTexts(b *testing.B) {
	p := register(b, newGenerator(12).prompt(6))
	for name, text := range monotonous {
		long := text(newGenerator(13), 64<<10)
		b.Run(name+"/scan", func(b *testing.B) {
			b.SetBytes(int64(len(long)))
			for b.Loop() {
				p.Scan([]byte(long))
			}
		})
		b.Run(name+"/stream", func(b *testing.B) {
			short := long[:16<<10]
			b.SetBytes(int64(len(short)))
			for b.Loop() {
				w := p.NewWriter(io.Discard)
				if err := cutEvery(short, 7, func(s string) error { _, err := io.WriteString(w, s); return err }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
