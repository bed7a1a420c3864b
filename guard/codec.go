package guard

import (
	"bytes"
	"encoding/binary"
	"math/bits"
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

// codecsOf has, for each byte, a bit for each codec that has it in its alphabet.
var codecsOf = func() (t [256]uint) {
	for k := range codecs {
		for c, d := range codecs[k].digit {
			if d != noDigit {
				t[c] |= 1 << k
			}
		}
	}
	return t
}()

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
// between them, and returns what they are and where they end. If that is little, it
// returns nil, and where it stopped.
func (c *codec) decode(text []byte) (out []byte, end int) {
	if c.grouped && c.inOnePiece(text) {
		return nil, 0
	}
	var few [2 * fewestDecoded]byte // most need no more
	read := few[:0]
	due := 0 // bytes of a character of UTF-8
	for {
		value, n, ok := c.block(text[end:])
		var block [8]byte
		binary.BigEndian.PutUint64(block[:], value<<(64-8*c.out))
		if !ok || value>>(8*c.out) != 0 || !isText(block[:c.out], &due) {
			if len(read) < fewestDecoded {
				return nil, end + n
			}
			return bytes.Clone(read), end
		}
		read = append(read, block[:c.out]...)
		end += n
	}
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
// where they end, or where it stopped.
func (c *codec) block(text []byte) (value uint64, end int, ok bool) {
	weight := uint64(1)
	for got, gap := 0, 0; got < c.in; end++ {
		if end >= len(text) {
			return 0, len(text), false
		}
		ch := text[end]
		d := c.digit[ch]
		if ch == '\n' && c.lined {
			end++ // the length of the line
			d = noDigit
		}
		if d == noDigit {
			if gap++; gap > codecGap || isAlnum(ch) || ch >= utf8.RuneSelf {
				return 0, min(end, len(text)), false
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
	return value, end, true
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

// unblock returns the parts of l that have codecs and alphabets of words, with what
// these stand for in place of them.
func unblock(l *layer) ([]*layer, reading) {
	r, tries := newReader(l), codecTries
	for i := 0; i < len(r.text); {
		tries--
		if inWord(r.text, i) && tries < 0 || endsWord(r.text, i) {
			i++
			continue
		}
		decoded, n := r.code(i)
		if decoded == nil {
			i++
			continue
		}
		r.replace(decoded, i, n)
		i, tries = i+n, codecTries
	}
	r.open = min(r.open, max(0, len(r.text)-1)) // what may follow tells of the last sign
	return r.decoded(), r.reading
}

// inWord reports whether text[i] is in a word, where no code begins but one that was cut.
func inWord(text []byte, i int) bool { return i > 0 && isAlnum(text[i-1]) && isAlnum(text[i]) }

// endsWord reports whether text[i] is a space, or a sign before one.
func endsWord(text []byte, i int) bool {
	return isSpace(text[i]) || !isAlnum(text[i]) && (i+1 == len(text) || isSpace(text[i+1]))
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

// code decodes what begins at r.text[i], and returns it and its length, or nil.
func (r *reader) code(i int) (decoded []byte, n int) {
	text := r.text
	if i == 0 || !isAlnum(text[i-1]) {
		if decoded, n = r.try(i, hexDump); decoded != nil {
			return decoded, n
		}
	}
	for _, read := range [...]func([]byte) ([]byte, int){spellingAlphabet, filled} {
		if decoded, n = r.try(i, read); decoded != nil {
			return decoded, n
		}
	}
	if n = wordLen(text[i:]); n > 0 {
		r.looked(text, i, n+2)
		return nil, 0
	}
	if before, _ := utf8.DecodeLastRune(text[:i]); !isSelector(before) { // a row is read once
		if decoded, n = r.try(i, selectors); decoded != nil {
			return decoded, n
		}
	}
	for _, read := range [...]func([]byte) ([]byte, int){morse, letterNumbers, bigNumber} {
		if decoded, n = r.try(i, read); decoded != nil {
			return decoded, n
		}
	}
	for set := codecsOf[text[i]]; set != 0; set &= set - 1 {
		if decoded, n = r.try(i, codecs[bits.TrailingZeros(set)].decode); decoded != nil {
			return decoded, n
		}
	}
	if i > 0 && !isSpace(text[i-1]) && !isLower(text[i-1]) {
		return nil, 0 // rot47 has spaces between its words
	}
	return r.try(i, rot47) // which other codes look like
}
