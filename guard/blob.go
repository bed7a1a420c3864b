package guard

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// shortestRun is how many characters of base64 are tried without padding, and of the
// other encodings in any case.
const shortestRun = 8

// blob decodes base64, base32 or hexadecimal. Line breaks may be in it, and a
// word before it; a stream may have cut off its beginning. It returns nil and
// the length of the run if it is none of these.
func (r *reader) blob(i int) ([]byte, int) {
	text := r.text[i:]
	first := runEnd(text, 0)
	end, run := first, text[:first]
	if i >= r.joins.end {
		r.joins.tries = codecTries
	}
	for line := 0; end-line >= 16 && r.joins.tries > 0; { // and the next lines
		next := breakLine(text[end:])
		if next == 0 || end+next == len(text) || alphabet[text[end+next]]&inBase64 == 0 {
			break
		}
		if end == first { // append copies run, and text stays as it is
			run = run[:end:end]
		}
		line = end + next
		end = runEnd(text, line)
		run = append(run, text[line:end]...)
	}
	pad := end
	for pad < len(text) && text[pad] == '=' {
		pad++
	}
	r.looked(r.text, i, pad+breakLine(text[pad:]))
	if padded := pad > end && pad%4 == 0; len(run) < shortestRun && (!padded || len(run) < 2) {
		return nil, pad
	}
	if out := decodeRun(run); out != nil {
		return out, pad
	}
	if end == first {
		return nil, pad
	}
	// Several lines, but not of one blob. That is tried from a few of them.
	r.joins.end = i + end
	r.joins.tries--
	r.steps += first
	return decodeRun(text[:first]), first
}

// runEnd returns the end of the run of base64 at text[i:], without padding.
func runEnd(text []byte, i int) int {
	for i < len(text) && alphabet[text[i]]&inBase64 != 0 {
		i++
	}
	return i
}

func decodeRun(run []byte) []byte {
	kind, bits := byte(0xff), len(run) >= 32
	for _, c := range run {
		kind &= alphabet[c]
		bits = bits && c&^1 == '0'
	}
	for phase := 0; bits && phase < 8; phase++ {
		if out := decodeWhole(run[phase:], binaryBytes); out != nil {
			return out
		}
	}
	for phase := 0; kind&inHex != 0 && len(run) >= shortestRun && phase < 2; phase++ {
		if out := decodeWhole(run[phase:], hexBytes); out != nil {
			return out
		}
	}
	if kind&inBase32 != 0 && len(run) >= 16 {
		if out := decodeWhole(run, base32Bytes); out != nil {
			return out
		}
	}
	if len(run) < 24 && !beginsText(run) {
		return nil // compressed text is longer
	}
	for phase := 0; phase < 4 && phase < len(run); phase++ {
		if phase > 0 && len(run)-phase < 24 {
			break
		}
		if out := decodeWhole(run[phase:], base64Bytes); out != nil {
			return out
		}
	}
	if len(run) < 32 {
		return nil
	}
	// It may have been written backwards.
	const head = 8
	for phase := range 4 {
		last := reversed(run[len(run)-phase-head : len(run)-phase])
		if !beginsText(last) {
			continue
		}
		if out := base64Bytes(reversed(run[:len(run)-phase])); readable(out) {
			return out
		}
	}
	return nil
}

// decodeWhole decodes a run, compressed or in UTF-16 or not, if that makes a text.
// Hardly any does, and its first digits tell.
func decodeWhole(run []byte, decode func([]byte) []byte) []byte {
	const head = 192 // digits, whole blocks in every encoding
	if len(run) > head {
		out := decode(run[:head])
		if wide := bytes.Count(out, []byte{0})*4 >= len(out); !wide && !isPacked(out) && garbled(out) {
			return nil
		}
	}
	if out := unpacked(decode(run)); readable(out) {
		return out
	}
	return nil
}

func binaryBytes(digits []byte) []byte {
	out := make([]byte, len(digits)/8)
	for i := range out {
		for _, c := range digits[8*i : 8*i+8] {
			out[i] = out[i]<<1 | c&1
		}
	}
	return out
}

func hexBytes(digits []byte) []byte {
	out := make([]byte, len(digits)/2)
	_, _ = hex.Decode(out, digits[:len(digits)&^1])
	return out
}

func base32Bytes(digits []byte) []byte {
	out := make([]byte, len(digits)/8*5)
	n, _ := base32.StdEncoding.Decode(out, digits[:len(digits)&^7])
	return out[:n]
}

// base64Bytes reads either alphabet.
func base64Bytes(digits []byte) []byte {
	if len(digits)%4 == 1 {
		digits = digits[:len(digits)-1]
	}
	out := bytes.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, digits)
	n, _ := base64.RawStdEncoding.Decode(out, out) // what is written was read before
	return out[:n]
}

// unpacked returns what b is, compressed or in UTF-16, or b.
func unpacked(b []byte) []byte {
	if isPacked(b) {
		return inflate(nil, b)
	}
	if zeros := bytes.Count(b, []byte{0}); zeros*3 < len(b) || len(b) < 2 {
		return b
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[0] == 0 {
		order = binary.BigEndian
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// beginsText reports whether run may be the base64 of something readable, by
// its first six bytes: it spares most words the rest.
func beginsText(run []byte) bool {
	var in [8]byte
	var out [6]byte
	for i, c := range run[:min(len(run), 8)&^3] {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		in[i] = c
	}
	n, err := base64.StdEncoding.Decode(out[:], in[:min(len(run), 8)&^3])
	return err == nil && readable(wholeRunes(out[:n]))
}

// wholeRunes returns b without a character that it cuts.
func wholeRunes(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if last := b[len(b)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return b[:len(b)-n]
			}
			break
		}
	}
	return b
}

// breakLine returns the length of a line break at the start of text, quoted
// or escaped ones included; 0 if there is none.
func breakLine(text []byte) int {
	n := 0
	for n < len(text) && n < 8 && (text[n] == '\r' || text[n] == '\n') {
		n++
	}
	if n == 0 && len(text) > 1 && text[0] == '\\' && text[1] == 'n' {
		n = 2
	}
	if n == 0 {
		return 0
	}
	for n < len(text) && n < 8 && (text[n] == ' ' || text[n] == '>' || text[n] == '\t') {
		n++
	}
	return n
}

// readable reports whether text may have been written to be read. If it is long, its
// ends may be cut, or have something with them that does not belong to it.
func readable(text []byte) bool {
	letters, others, ok := census(text)
	return ok && letters > 0 && others*10 <= letters+20
}

// garbled reports whether text, and any text that begins with it, is not readable.
func garbled(text []byte) bool {
	_, _, ok := census(text)
	return !ok
}

// census counts the letters of text and what is no letter, unless there is something in
// it that is in no text.
func census(text []byte) (letters, others int, ok bool) {
	const long = 18
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if len(text) < long || i > 2 && i < len(text)-3 {
				return letters, others, false
			}
			others++
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return letters, others, false
		case r < utf8.RuneSelf || unicode.IsLetter(r):
			letters++
		default:
			others++
		}
		i += n
	}
	return letters, others, true
}

// Which alphabets a byte is in.
const (
	inHex = 1 << iota
	inBase32
	inBase64
)

var alphabet = func() (t [256]byte) {
	for c := range t {
		switch c := byte(c); {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			t[c] |= inHex
		}
		switch c := byte(c); {
		case c >= 'A' && c <= 'Z', c >= '2' && c <= '7':
			t[c] |= inBase32
		}
		switch c := byte(c); {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+', c == '/', c == '-', c == '_':
			t[c] |= inBase64
		}
	}
	return t
}()
