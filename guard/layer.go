package guard

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"html"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxDepth bounds how many encodings inside one another are undone.
const maxDepth = 3

// A layer is a reading of a text: as it stands, or with an encoding undone.
// Byte i of it was made from the bytes [from[i], to[i]) of the original.
type layer struct {
	text     []byte
	from, to []int32
}

func (l *layer) add(text []byte, from, to int32) {
	l.text = append(l.text, text...)
	for range text {
		l.from, l.to = append(l.from, from), append(l.to, to)
	}
}

// span returns the bytes of the original that [start, end) was made from.
func (l *layer) span(start, end int) (int, int) { return int(l.from[start]), int(l.to[end-1]) }

// eachLayer calls f with the readings of text, the plain one first, until f
// returns false. Text is not longer than an int32 holds.
func eachLayer(text []byte, f func(*layer) bool) {
	l := &layer{}
	plain(l, text, nil)
	for depth := 0; f(l) && depth < maxDepth; depth++ {
		decoded := &layer{}
		if !undo(decoded, l) {
			return
		}
		l = &layer{}
		plain(l, decoded.text, decoded)
	}
}

// plain appends text to l without what only changes its looks: compatibility
// forms (full width, ligatures), accents, invisible characters, and letters of
// other scripts that look Latin. Letters keep their case, because base64 needs
// it. If under is not nil, text is its text.
func plain(l *layer, text []byte, under *layer) {
	l.text = make([]byte, 0, len(text))
	l.from, l.to = make([]int32, 0, len(text)), make([]int32, 0, len(text))
	source := func(i, j int) (int32, int32) {
		if under != nil {
			return under.from[i], under.to[j-1]
		}
		return int32(i), int32(j)
	}
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			from, to := source(i, i+1)
			l.text, l.from, l.to = append(l.text, c), append(l.from, from), append(l.to, to)
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		from, to := source(i, i+n)
		whole := norm.NFKD.Properties(text[i : i+n]).Decomposition()
		if whole == nil {
			whole = text[i : i+n]
		}
		i += n
		if r == utf8.RuneError && n == 1 {
			continue
		}
		for len(whole) > 0 {
			r, n := utf8.DecodeRune(whole)
			whole = whole[n:]
			if r = look(r); r >= 0 {
				l.add(utf8.AppendRune(nil, r), from, to)
			}
		}
	}
}

// look returns the character that r looks like; -1 if r cannot be seen.
func look(r rune) rune {
	switch {
	case r < utf8.RuneSelf:
		return r
	case r >= 0xE0020 && r <= 0xE007E: // tags: invisible, but models read and write them
		return r - 0xE0000
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf), r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0:
		return -1
	case unicode.IsSpace(r), r == 0x2800:
		return ' '
	case r == '\u2019', r == '\u02BC':
		return '\''
	case unicode.Is(unicode.Pd, r), r == '\u2212':
		return '-'
	}
	if latin := confusable(r); latin != 0 {
		return latin
	}
	return r
}

// confusable returns the Latin letter that a Cyrillic or Greek one is drawn
// like (Unicode Technical Standard 39, confusables.txt), or 0.
func confusable(r rune) rune {
	switch r {
	case 'а', 'α':
		return 'a'
	case 'в', 'В', 'Β':
		return 'B'
	case 'с', 'ϲ':
		return 'c'
	case 'ԁ':
		return 'd'
	case 'е', 'є':
		return 'e'
	case 'һ':
		return 'h'
	case 'і', 'ι', 'ı':
		return 'i'
	case 'ј':
		return 'j'
	case 'к', 'κ':
		return 'k'
	case 'ӏ':
		return 'l'
	case 'м':
		return 'm'
	case 'о', 'ο':
		return 'o'
	case 'р', 'ρ':
		return 'p'
	case 'ԛ':
		return 'q'
	case 'ѕ':
		return 's'
	case 'т', 'τ':
		return 't'
	case 'υ', 'ս':
		return 'u'
	case 'ν', 'ѵ':
		return 'v'
	case 'ԝ':
		return 'w'
	case 'х', 'χ':
		return 'x'
	case 'у', 'γ':
		return 'y'
	case 'А', 'Α':
		return 'A'
	case 'С':
		return 'C'
	case 'Е', 'Ε':
		return 'E'
	case 'Н', 'Η':
		return 'H'
	case 'І', 'Ι':
		return 'I'
	case 'К', 'Κ':
		return 'K'
	case 'М', 'Μ':
		return 'M'
	case 'Ν':
		return 'N'
	case 'О', 'Ο':
		return 'O'
	case 'Р', 'Ρ':
		return 'P'
	case 'Ѕ':
		return 'S'
	case 'Т', 'Τ':
		return 'T'
	case 'Х', 'Χ':
		return 'X'
	case 'У', 'Υ':
		return 'Y'
	}
	return 0
}

// undo appends l to out with one level of encoding undone wherever there is
// one, and reports whether there was any.
func undo(out, l *layer) bool {
	out.text = make([]byte, 0, len(l.text))
	out.from, out.to = make([]int32, 0, len(l.text)), make([]int32, 0, len(l.text))
	text, found := l.text, false
	for i := 0; i < len(text); {
		decoded, n := encoded(text, i)
		if n == 0 {
			out.text = append(out.text, text[i])
			out.from, out.to = append(out.from, l.from[i]), append(out.to, l.to[i])
			i++
			continue
		}
		if decoded == nil { // looked at, and plain
			out.text = append(out.text, text[i:i+n]...)
			out.from, out.to = append(out.from, l.from[i:i+n]...), append(out.to, l.to[i:i+n]...)
		} else {
			out.add(decoded, l.from[i], l.to[i+n-1])
			found = true
		}
		i += n
	}
	return found
}

// encoded looks for something encoded at text[i:]. It returns what it stands
// for and its length; nil and the length of what is certainly plain; or 0.
func encoded(text []byte, i int) ([]byte, int) {
	switch c := text[i]; {
	case c == '%', c == '=':
		if b, ok := hexByte(text[i+1:]); ok {
			return []byte{b}, 3
		}
	case c == '\\':
		return escape(text[i:])
	case c == '&':
		return entity(text[i:])
	case alphabet[c]&inBase64 != 0 && (i == 0 || alphabet[text[i-1]]&inBase64 == 0):
		if decoded, n := numbers(text[i:]); n > 0 {
			return decoded, n
		}
		return blob(text[i:])
	}
	return nil, 0
}

func hexByte(text []byte) (byte, bool) {
	if len(text) < 2 || alphabet[text[0]]&alphabet[text[1]]&inHex == 0 {
		return 0, false
	}
	var b [1]byte
	_, err := hex.Decode(b[:], text[:2])
	return b[0], err == nil
}

// escape decodes \uXXXX, \u{X}, \xXX, and \n and the like, as a string of
// JSON, Go or JavaScript has them.
func escape(text []byte) ([]byte, int) {
	if len(text) < 2 {
		return nil, 0
	}
	switch text[1] {
	case 'n', 'r', 't':
		return []byte{' '}, 2
	case '"', '\'', '\\', '/':
		return text[1:2], 2
	case 'x':
		if b, ok := hexByte(text[2:]); ok {
			return []byte{b}, 4
		}
	case 'u', 'U':
		digits, end := text[2:], 0
		if len(digits) > 0 && digits[0] == '{' {
			for end = 1; end < len(digits) && end < 9 && digits[end] != '}'; end++ {
			}
			if end == len(digits) || digits[end] != '}' {
				return nil, 0
			}
			r, err := strconv.ParseUint(string(digits[1:end]), 16, 21)
			if err != nil {
				return nil, 0
			}
			return utf8.AppendRune(nil, rune(r)), 2 + end + 1
		}
		size := 4
		if text[1] == 'U' {
			size = 8
		}
		if len(digits) < size {
			return nil, 0
		}
		r, err := strconv.ParseUint(string(digits[:size]), 16, 32)
		if err != nil || r > unicode.MaxRune {
			return nil, 0
		}
		if utf16.IsSurrogate(rune(r)) && len(digits) >= 10 && digits[4] == '\\' && digits[5] == 'u' {
			if low, err := strconv.ParseUint(string(digits[6:10]), 16, 32); err == nil {
				if both := utf16.DecodeRune(rune(r), rune(low)); both != unicode.ReplacementChar {
					return utf8.AppendRune(nil, both), 12
				}
			}
		}
		return utf8.AppendRune(nil, rune(r)), 2 + size
	}
	return nil, 0
}

// entity decodes one HTML character reference, which must end in a semicolon.
func entity(text []byte) ([]byte, int) {
	const longest = 33 // &CounterClockwiseContourIntegral;
	for n := 1; n < len(text) && n < longest; n++ {
		switch c := text[n]; {
		case c == ';':
			if s := string(text[:n+1]); html.UnescapeString(s) != s {
				return []byte(html.UnescapeString(s)), n + 1
			}
			return nil, 0
		case c != '#' && alphabet[c]&inBase64 == 0:
			return nil, 0
		}
	}
	return nil, 0
}

// numbers decodes a row of character codes: 59 6f 75, 0x59,0x6f, 59:6f, or in
// binary or decimal. A run of hexadecimal digits without gaps is a blob.
func numbers(text []byte) ([]byte, int) {
	const fewest = 5
	for _, base := range []int{2, 16, 10} {
		var out []byte
		end := 0
		for i := 0; i < len(text); {
			start := i
			if base == 16 && i+1 < len(text) && text[i] == '0' && text[i+1]|0x20 == 'x' {
				i += 2
			}
			first := i
			for i < len(text) && i-first < 9 && alphabet[text[i]]&inBase64 != 0 {
				i++
			}
			code, err := strconv.ParseUint(string(text[first:i]), base, 8)
			width := i - first
			if err != nil || (base == 2 && width != 8) || (base == 16 && width != 2) || code >= utf8.RuneSelf {
				i = start
				break
			}
			out, end = append(out, byte(code)), i
			for i < len(text) && i-end < 3 && isGap(text[i]) {
				i++
			}
			if i == end {
				break
			}
		}
		if len(out) >= fewest && readable(out) {
			return out, end
		}
	}
	return nil, 0
}

func isGap(c byte) bool { return c == ' ' || c == ',' || c == ':' || c == '\n' || c == '-' || c == ';' }

// blob decodes base64, base32 or hexadecimal. Line breaks may be in it, and a
// word before it; a stream may have cut off its beginning. It returns nil and
// the length of the run if it is none of these.
func blob(text []byte) ([]byte, int) {
	const shortest = 8
	var run []byte
	end, first := 0, 0 // end of the run, and of its first line
	for end < len(text) {
		line := end
		for end < len(text) && alphabet[text[end]]&inBase64 != 0 {
			end++
		}
		run = append(run, text[line:end]...)
		if first == 0 {
			first = end
		}
		next := breakLine(text[end:])
		if next == 0 || end-line < 16 || end+next >= len(text) || alphabet[text[end+next]]&inBase64 == 0 {
			break
		}
		end += next
	}
	padded := false
	for end < len(text) && text[end] == '=' && !padded || end < len(text) && text[end] == '=' {
		end, padded = end+1, true
	}
	if len(run) < shortest && (!padded || len(run) < 2) {
		return nil, end
	}
	if out := decodeRun(run); out != nil {
		return out, end
	}
	if first < end && first != len(run) { // several lines, not one blob
		if out := decodeRun(text[:first]); out != nil && first >= shortest {
			return out, first
		}
		return nil, first
	}
	return nil, end
}

func decodeRun(run []byte) []byte {
	kind := byte(0xff)
	for _, c := range run {
		kind &= alphabet[c]
	}
	if kind&inHex != 0 {
		for phase := 0; phase < 2 && phase < len(run); phase++ {
			digits := run[phase:]
			out := make([]byte, len(digits)/2)
			if _, err := hex.Decode(out, digits[:len(digits)&^1]); err == nil && readable(out) {
				return out
			}
		}
	}
	if kind&inBase32 != 0 && len(run) >= 16 {
		out, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(string(run[:len(run)-len(run)%8]))
		if err == nil && readable(out) {
			return out
		}
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
		if err == nil && readable(out[:n]) {
			return out[:n]
		}
	}
	return nil
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
