package guard

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// layerDepth is how many encodings, one inside the other, are undone to look
// for a prompt or a tag.
const layerDepth = 3

// A layer is a reading of a text: as it stands, or with what is encoded in it
// replaced by what that stands for. Unlike the layers of a view it is one text,
// so that words keep their neighbours when each line is encoded alone. Byte i
// was made from the bytes [from[i], to[i]) of the original; if from is nil,
// from itself.
type layer struct {
	text     []byte
	from, to []int32
}

// span returns the bytes of the original that text[i:j], which is not empty,
// was made from.
func (l *layer) span(i, j int) (int, int) {
	if l.from == nil {
		return i, j
	}
	return int(l.from[i]), int(l.to[j-1])
}

// add appends text, which stands for under.text[i:j].
func (l *layer) add(text []byte, under *layer, i, j int) {
	from, to := under.span(i, j)
	l.text = append(l.text, text...)
	for range text {
		l.from, l.to = append(l.from, int32(from)), append(l.to, int32(to))
	}
}

// plain returns l as a view shows it, with or without the tags of HTML that
// only change how text looks.
func plain(l *layer, keepTags bool) *layer {
	v := &view{keepTags: keepTags}
	v.reset(l.text, 0)
	if v.from != nil && l.from != nil {
		for i := range v.from {
			v.from[i], v.to[i] = l.from[v.from[i]], l.to[v.to[i]-1]
		}
	}
	if v.from == nil {
		return l
	}
	return &layer{v.text, v.from, v.to}
}

// eachLayer calls f with the readings of text, the plain one first, until f
// returns false. Text is not longer than an int32 holds.
func eachLayer(text []byte, f func(*layer) bool) {
	l := &layer{text: text}
	for depth := 0; l != nil && depth <= layerDepth; depth++ {
		under, shown := l, plain(l, true)
		if !f(shown) {
			return
		}
		if bytes.IndexByte(shown.text, '<') >= 0 {
			if bare := plain(l, false); len(bare.text) != len(shown.text) {
				if !f(bare) {
					return
				}
				shown = bare
			}
		}
		if letters := unleet(shown); letters != nil && !f(letters) {
			return
		}
		l = undo(shown)
		decoded := unblock(under) // signs may be digits there that are escapes in what is shown
		if decoded == nil && under != shown {
			decoded = unblock(shown)
		}
		if decoded != nil {
			if !f(decoded) {
				return
			}
			if l == nil {
				l = decoded
			}
		}
	}
}

// undo returns l with one level of encoding undone wherever there is one, or
// nil if there is none.
func undo(l *layer) *layer {
	var out *layer
	text, done := l.text, 0
	quoted := bytes.Count(text, []byte("=20")) >= 3
	for i := 0; i < len(text); {
		var decoded []byte
		n := 0
		switch {
		case quoted: // what it hides is read at the next level
			decoded, n = unquoted(text[i:])
		case alphabet[text[i]]&inBase64 != 0:
			if decoded, n = numbers(text[i:]); n == 0 {
				decoded, n = blob(text[i:])
			}
		}
		n = max(n, 1)
		if decoded != nil {
			if out == nil {
				out = &layer{}
			}
			out.keep(l, done, i)
			out.add(decoded, l, i, i+n)
			done = i + n
		}
		i += n
	}
	if out != nil {
		out.keep(l, done, len(text))
	}
	return out
}

// unquoted decodes an escape of quoted-printable text, or a soft line break.
func unquoted(text []byte) ([]byte, int) {
	if text[0] != '=' {
		return nil, 1
	}
	if len(text) > 2 && hexDigit(text[1]) >= 0 && hexDigit(text[2]) >= 0 {
		return []byte{byte(hexDigit(text[1])<<4 | hexDigit(text[2]))}, 3
	}
	if n := breakLine(text[1:]); n > 0 {
		return []byte{}, 1 + n
	}
	return nil, 1
}

// unleet returns l with letters in place of the digits and signs that look like
// them, or nil if fewer than three runs of these touch a letter. A one is read as
// an i, and so is what ends a sentence, if a letter follows.
func unleet(l *layer) *layer {
	const signs, letters = "01345789@$!+|", "oieastbgasitl"
	out, found := bytes.Clone(l.text), 0
	for i := 0; i < len(out); i++ {
		end := i
		for end < len(out) && strings.IndexByte(signs, out[end]) >= 0 {
			end++
		}
		before, behind := i > 0 && isLetter(out[i-1]), end < len(out) && isLetter(out[end])
		if end == i || !before && !behind || !behind && strings.IndexByte("!+|", out[i]) >= 0 {
			i = end
			continue
		}
		for found++; i < end; i++ {
			out[i] = letters[strings.IndexByte(signs, out[i])]
		}
	}
	if found < 3 {
		return nil
	}
	return &layer{text: out, from: l.from, to: l.to}
}

// keep appends under.text[i:j] as it is.
func (l *layer) keep(under *layer, i, j int) {
	for ; i < j; i++ {
		l.add(under.text[i:i+1], under, i, i+1)
	}
}

// numbers decodes a row of character codes: 59 6f 75, 0x59,0x6f, 59:6f, U+0059
// U+006F, or in binary, octal or decimal. A run of hexadecimal digits without gaps is a blob.
func numbers(text []byte) ([]byte, int) {
	const fewest = 5
	for _, base := range [...]int{2, 16, 8, 10} {
		var out []byte
		end := 0
		for i := 0; i < len(text); {
			width := 2
			switch {
			case base != 16 || i+1 >= len(text):
			case text[i] == '0' && text[i+1]|0x20 == 'x':
				i += 2
			case text[i]|0x20 == 'u' && text[i+1] == '+':
				i, width = i+2, 4
			}
			code, n := digits(text[i:], base)
			if n == 0 || base == 2 && n != 8 || base == 16 && n != width || base == 8 && n < 2 || code >= utf8.RuneSelf {
				break
			}
			if code < ' ' && code != '\n' && code != '\r' && code != '\t' {
				break // a stream may have cut a number
			}
			i += n
			out, end = append(out, byte(code)), i
			if i += gapLen(text[i:]); i == end {
				break
			}
		}
		if len(out) >= fewest && readable(out) {
			return out, end
		}
	}
	return nil, 0
}

// digits reads a number that ends where its word does, and returns it with its
// length; length 0 if there is none, or one of more than eight digits.
func digits(text []byte, base int) (value, n int) {
	for ; n < len(text) && isAlnum(text[n]); n++ {
		d := hexDigit(text[n])
		if d < 0 || d >= base || n == 8 {
			return 0, 0
		}
		value = value*base + d
	}
	return value, n
}

// gapLen returns the length of what stands between two character codes at the start
// of text: up to three signs, or those between calls of a function, as in
// chr(89)+chr(111).
func gapLen(text []byte) int {
	n := 0
	for n < len(text) && n < 3 && gapByte[text[n]] {
		n++
	}
	if n < len(text) && text[n] == ')' {
		call := text[n:min(len(text), n+16)]
		if open := bytes.IndexByte(call, '('); open > 0 && bytes.Contains(bytes.ToLower(call[:open]), []byte("ch")) {
			return n + open + 1
		}
	}
	return n
}

// gapByte marks what stands between character codes.
var gapByte = byteSet(" ,:\n-;/|._")

// blob decodes base64, base32 or hexadecimal. Line breaks may be in it, and a
// word before it; a stream may have cut off its beginning. It returns nil and
// the length of the run if it is none of these.
func blob(text []byte) ([]byte, int) {
	const shortest = 8
	first := runEnd(text, 0)
	end := first
	run := text[:end]
	for line := 0; end-line >= 16; { // and the next lines
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
	if len(run) < shortest && (pad == end || len(run) < 2) {
		return nil, pad
	}
	if out := decodeRun(run); out != nil {
		return out, pad
	}
	if first < end { // several lines, but not of one blob
		if out := decodeRun(text[:first]); out != nil {
			return out, first
		}
		return nil, first
	}
	return nil, pad
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
		digits := run[phase:]
		out := make([]byte, len(digits)/8)
		for i := range out {
			for _, c := range digits[8*i : 8*i+8] {
				out[i] = out[i]<<1 | c&1
			}
		}
		if readable(out) {
			return out
		}
	}
	if kind&inHex != 0 {
		for phase := 0; phase < 2 && phase < len(run); phase++ {
			digits := run[phase:]
			out := make([]byte, len(digits)/2)
			if _, err := hex.Decode(out, digits[:len(digits)&^1]); err == nil {
				if out = unpacked(out); readable(out) {
					return out
				}
			}
		}
	}
	if kind&inBase32 != 0 && len(run) >= 16 {
		out, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(string(run[:len(run)-len(run)%8]))
		if err == nil && readable(out) {
			return out
		}
	}
	if len(run) < 24 && !beginsText(run) {
		return nil // compressed text is longer
	}
	std := make([]byte, len(run))
	for i, c := range run {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		std[i] = c
	}
	for phase := 0; phase < 4 && phase < len(std); phase++ {
		s := std[phase:]
		if phase > 0 && len(s) < 24 {
			break
		}
		if len(s)%4 == 1 {
			s = s[:len(s)-1]
		}
		out := make([]byte, base64.RawStdEncoding.DecodedLen(len(s)))
		n, err := base64.RawStdEncoding.Decode(out, s)
		if err != nil {
			continue
		}
		if out = unpacked(out[:n]); readable(out) {
			return out
		}
	}
	if len(std) < 32 {
		return nil
	}
	slices.Reverse(std) // it may have been written backwards
	for phase := range 4 {
		s := std[phase:]
		if !beginsText(s) {
			continue
		}
		out := make([]byte, base64.RawStdEncoding.DecodedLen(len(s)))
		n, err := base64.RawStdEncoding.Decode(out, s[:len(s)&^3])
		if err == nil && readable(out[:n]) {
			return out[:n]
		}
	}
	return nil
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
	return err == nil && readable(out[:n])
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

// readable reports whether text may have been written to be read.
func readable(text []byte) bool {
	letters, others := 0, 0
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if i > 2 && i < len(text)-3 { // the ends may be cut
				return false
			}
			others++
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return false
		case r < utf8.RuneSelf || unicode.IsLetter(r):
			letters++
		default:
			others++
		}
		i += n
	}
	return letters > 0 && others*10 <= letters+20
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
