package guard

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// A codec is an encoding in blocks: so many characters are the digits of a number
// that so many bytes are. Encodings with more than that to them, such as base64 of
// something compressed, are undone elsewhere.
type codec struct {
	in, out int
	base    uint64
	little  bool // the first digit counts least
	lined   bool // a line begins with its length
	grouped bool // only in groups: what is in one piece is undone elsewhere
	digit   [256]int8
}

// noDigit marks what is in no alphabet.
const noDigit = -1

const (
	fewestDecoded = 16 // bytes, all of which are text: what is less may be chance
	codecGap      = 4  // bytes of another kind between two digits, at most
	codecTries    = 8  // places at which a block may begin where the one before ended badly
)

const (
	smalls   = "abcdefghijklmnopqrstuvwxyz"
	capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	numerals = "0123456789"
)

var codecs = []codec{
	inGroups(newCodec(2, 1, numerals+"abcdef", true)),                         // hexadecimal
	inGroups(newCodec(4, 3, capitals+smalls+numerals+"+/", false)),            // base64
	newCodec(4, 3, rot13(capitals)+rot13(smalls)+numerals+"+/", false),        // and in rot13
	newCodec(8, 5, smalls+"234567", true),                                     // base32
	newCodec(8, 5, numerals+"abcdefghijklmnopqrstuv", true),                   // base32hex
	newCodec(8, 5, numerals+"abcdefghjkmnpqrstvwxyz", true),                   // Crockford's
	newCodec(5, 4, numerals+capitals+smalls+"!#$%&()*+-;<=>?@^_`{|}~", false), // base85 of RFC 1924
	newCodec(5, 4, numerals+smalls+capitals+".-:+=^!/*?&<>()[]{}@%$#", false), // Z85
	newCodec(5, 4, span('!', 'u'), false),                                     // Ascii85
	newCodec(3, 2, numerals+capitals+" $%*+-./:", false),                      // base45
	newCodec(4, 3, "`"+span('!', '_'), false),                                 // uuencode
	newCodec(4, 3, "+-"+numerals+capitals+smalls, false),                      // xxencode
	newCodec(8, 1, "01", false),                                               // binary
	newCodec(7, 1, "01", false),                                               // of seven digits
	newCodec(3, 1, numerals, false),                                           // decimal of three
}

// newCodec returns the codec of an alphabet, in which fold says that capitals are as
// good as small letters.
func newCodec(in, out int, alphabet string, fold bool) codec {
	c := codec{in: in, out: out, base: uint64(len(alphabet))}
	for i := range c.digit {
		c.digit[i] = noDigit
	}
	for i := range len(alphabet) {
		c.digit[alphabet[i]] = int8(i)
		if fold {
			c.digit[upper(alphabet[i])] = int8(i)
		}
	}
	switch c.base {
	case 45:
		c.little = true
	case 64:
		if alphabet[0] == '`' || alphabet[0] == '+' {
			c.lined = true
			c.digit[' '] = c.digit['`']
		}
	}
	return c
}

func inGroups(c codec) codec {
	c.grouped = true
	return c
}

func span(first, last byte) string {
	var b strings.Builder
	for c := first; c <= last; c++ {
		b.WriteByte(c)
	}
	return b.String()
}

// decode reads blocks at the start of text for as long as they are text, whatever is
// between them, and returns what they are and where they end. It returns nil if that
// is little.
func (c *codec) decode(text []byte) (out []byte, end int) {
	if len(text) == 0 || c.digit[text[0]] == noDigit || c.grouped && c.inOnePiece(text) {
		return nil, 0
	}
	due := 0 // bytes of a character of UTF-8
	for end < len(text) {
		value, n := c.block(text[end:])
		if n == 0 || value>>(8*c.out) != 0 {
			break
		}
		var block [8]byte
		binary.BigEndian.PutUint64(block[:], value<<(64-8*c.out))
		if !isText(block[:c.out], &due) {
			break
		}
		out = append(out, block[:c.out]...)
		end += n
	}
	if len(out) < fewestDecoded {
		return nil, 0
	}
	return out, end
}

// inOnePiece reports whether text begins with as many digits as would make a text.
func (c *codec) inOnePiece(text []byte) bool {
	enough := fewestDecoded * c.in / c.out
	if len(text) < enough {
		return false
	}
	for _, ch := range text[:enough] {
		if c.digit[ch] == noDigit {
			return false
		}
	}
	return true
}

// block reads the digits of a block at the start of text and returns their value and
// where they end, or 0.
func (c *codec) block(text []byte) (value uint64, end int) {
	weight := uint64(1)
	for got, gap := 0, 0; got < c.in; end++ {
		if end >= len(text) {
			return 0, 0
		}
		ch := text[end]
		if ch == '\n' && c.lined {
			end++ // the length of the line
			continue
		}
		d := c.digit[ch]
		if d == noDigit {
			if gap++; gap > codecGap || isAlnum(ch) || ch >= utf8.RuneSelf {
				return 0, 0
			}
			continue
		}
		got, gap = got+1, 0
		if c.little {
			value, weight = value+uint64(d)*weight, weight*c.base
		} else {
			value = value*c.base + uint64(d)
		}
	}
	return value, end
}

// isText reports whether b goes on what may be text in UTF-8, or UTF-16 of ASCII. due
// is how many bytes of a character are still to come.
func isText(b []byte, due *int) bool {
	for _, c := range b {
		switch {
		case *due > 0:
			if c&0xC0 != 0x80 {
				return false
			}
			*due--
		case c >= 0xC3 && c < 0xF5:
			*due = 1
			if c >= 0xE0 {
				*due = 2
			}
			if c >= 0xF0 {
				*due = 3
			}
		case c >= utf8.RuneSelf, c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != 0, c == 0x7F:
			return false
		}
	}
	return true
}

// unblock returns l with what codecs and alphabets of words stand for in place of
// them, or nil if there is nothing of the kind.
func unblock(l *layer) *layer {
	var out *layer
	text, done, tries := l.text, 0, codecTries
	for i := 0; i < len(text); {
		if tries--; tries < 0 && !mayBeginCode(text, i) {
			i++
			continue
		}
		decoded, n := readCode(text, i)
		if n == 0 {
			i++
			continue
		}
		if out == nil {
			out = &layer{}
		}
		out.keep(l, done, i)
		out.add(decoded, l, i, i+n)
		i += n
		done, tries = i, codecTries
	}
	if out != nil {
		out.keep(l, done, len(text))
	}
	return out
}

// mayBeginCode reports whether a code may begin at text[i]: at the beginning of a word,
// or at a sign that is not at the end of one.
func mayBeginCode(text []byte, i int) bool {
	if i > 0 && isAlnum(text[i-1]) && isAlnum(text[i]) || isSpace(text[i]) {
		return false
	}
	return isAlnum(text[i]) || i+1 < len(text) && !isSpace(text[i+1])
}

// wordLen returns the length of the word at the start of text if it is written as
// words are, which hardly any code is, or 0.
func wordLen(text []byte) int {
	const longest = 15
	n := 0
	for n < len(text) && n <= longest && (isLower(text[n]) || n == 0 && isUpper(text[n])) {
		n++
	}
	if n > longest || n < len(text) && !isSpace(text[n]) && !(n+1 == len(text) || isStop[text[n]] && isSpace(text[n+1])) {
		return 0
	}
	return n
}

// readCode decodes what begins at text[i], and returns it and its length, or 0.
func readCode(text []byte, i int) (decoded []byte, n int) {
	if i == 0 || text[i-1] == '\n' {
		if decoded, n = hexDump(text[i:]); n > 0 {
			return decoded, n
		}
	}
	for _, read := range [...]func([]byte) ([]byte, int){spellingAlphabet, filled} {
		if decoded, n = read(text[i:]); n > 0 {
			return decoded, n
		}
	}
	if wordLen(text[i:]) > 0 {
		return nil, 0
	}
	if before, _ := utf8.DecodeLastRune(text[:i]); !isSelector(before) { // a row is read once
		if decoded, n = selectors(text[i:]); n > 0 {
			return decoded, n
		}
	}
	for _, read := range [...]func([]byte) ([]byte, int){morse, letterNumbers, bigNumber} {
		if decoded, n = read(text[i:]); n > 0 {
			return decoded, n
		}
	}
	for k := range codecs {
		if decoded, n = codecs[k].decode(text[i:]); n > 0 {
			return decoded, n
		}
	}
	return rot47(text[i:]) // which other codes look like
}
