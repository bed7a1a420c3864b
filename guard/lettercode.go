package guard

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"strings"
	"unicode/utf8"
)

// Ways to write text that are no encoding in blocks: as a dump, as codes and words for
// letters, as one number, with something behind each letter. Each function reads what
// begins at the start of a text and returns what it stands for and its length; or nil,
// and where it stopped.

// hexDump reads lines of an offset, sixteen bytes in hexadecimal, and the same as
// text, as xxd and hexdump -C write them.
func hexDump(text []byte) (out []byte, end int) {
	for lines := 0; ; lines++ {
		line, n := hexLine(text[end:])
		if line == nil {
			if lines < 2 {
				return nil, end + n
			}
			return out, end
		}
		out, end = append(out, line...), end+n
	}
}

// hexLine reads a line of a dump.
func hexLine(line []byte) (out []byte, end int) {
	const most = 16 // bytes
	for end < len(line) && end <= 10 && hexDigit(line[end]) >= 0 {
		end++
	}
	if end < 6 || end > 10 || end == len(line) || line[end] != ':' && line[end] != ' ' {
		return nil, end
	}
	high := -1
digits:
	for ; end < len(line) && len(out) < most; end++ {
		switch d := hexDigit(line[end]); {
		case d < 0 && (line[end] != ' ' && line[end] != ':' || high >= 0):
			break digits
		case d < 0:
		case high < 0:
			high = d
		default:
			out, high = append(out, byte(high<<4|d)), -1
		}
	}
	if len(out) == 0 || !readable(out) {
		return nil, end
	}
	if n := bytes.IndexByte(line[end:], '\n'); n >= 0 {
		return out, end + n + 1
	}
	return out, len(line)
}

// morseLetters has the letter of each row of dots and dashes, whose bits, behind a
// leading 1, are its place.
const morseLetters = "  etianmsurwdkgohvf l pjbxcyzq  54 3   2       16       7   8 90"

// fewestLetters is how many letters written as codes or words make a text.
const fewestLetters = 8

// morse reads Morse code, in which a slash or a new line parts words.
func morse(text []byte) (out []byte, end int) {
	p, unknown := 0, 0 // codes in a row, of signs and of nothing
	for p < len(text) {
		code := 1
		for p < len(text) && (text[p] == '.' || text[p] == '-' || text[p] == '_') && code < 1<<8 {
			code <<= 1
			if text[p] != '.' {
				code |= 1
			}
			p++
		}
		letter := byte(' ')
		if code < len(morseLetters) {
			letter = morseLetters[code]
		}
		if unknown++; letter != ' ' {
			unknown = 0
		}
		if code == 1 || unknown > 2 {
			break
		}
		out, end = append(out, letter), p
		var parts bool
		if p, parts = betweenCodes(text, p); parts {
			out = append(out, ' ')
		}
		if p == end {
			break
		}
	}
	return enoughLetters(out, end, p)
}

// betweenCodes returns where the code behind text[p] begins, and whether a word ended.
func betweenCodes(text []byte, p int) (next int, parts bool) {
	first := p
	for p < len(text) && p-first < 6 && strings.IndexByte(" /|,;\n\t", text[p]) >= 0 {
		parts = parts || strings.IndexByte("/|\n", text[p]) >= 0
		p++
	}
	return p, parts || p-first > 2
}

// enoughLetters returns out and where it ends, or if it is little, nil and where
// reading stopped.
func enoughLetters(out []byte, end, stop int) ([]byte, int) {
	letters := 0
	for _, c := range out {
		if isAlnum(c) {
			letters++
		}
	}
	if letters < fewestLetters {
		return nil, stop
	}
	return out, end
}

// alphabetWords are those that spell letters, of NATO and as they are spelled, too.
var alphabetWords = func() map[string]byte {
	words := map[string]byte{}
	for w := range strings.FieldsSeq(`alfa alpha bravo charlie delta echo foxtrot golf hotel india juliett juliet kilo lima mike
november oscar papa quebec romeo sierra tango uniform victor whiskey whisky x xray yankee zulu`) {
		words[w] = w[0]
	}
	return words
}()

// spellingAlphabet reads words that spell letters.
func spellingAlphabet(text []byte) (out []byte, end int) {
	if !isLetter(text[0]) {
		return nil, 0
	}
	var buf [10]byte
	p := 0
	for p < len(text) {
		word := buf[:0]
		for p < len(text) && isLetter(text[p]) && len(word) < cap(word) {
			word = append(word, lower(text[p]))
			p++
		}
		letter, ok := alphabetWords[string(word)]
		if !ok {
			break
		}
		if string(word) == "x" && len(text)-p > 4 && strings.EqualFold(string(text[p:p+4]), "-ray") {
			p += 4
		}
		out, end = append(out, letter), p
		var parts bool
		if p, parts = betweenCodes(text, p); parts {
			out = append(out, ' ')
		} else if p == end && p < len(text) && (text[p] == '-' || text[p] == '.') {
			p++
		}
	}
	return enoughLetters(out, end, p)
}

// letterNumbers reads letters as their numbers in the alphabet.
func letterNumbers(text []byte) (out []byte, end int) {
	joined := false // the letters of a word, so that a space is behind it
	p := 0
	for p < len(text) && isDigit(text[p]) {
		n := 0
		for p < len(text) && isDigit(text[p]) && n <= 26 {
			n = 10*n + int(text[p]-'0')
			p++
		}
		if n == 0 || n > 26 {
			break
		}
		out, end = append(out, 'a'+byte(n-1)), p
		if p < len(text) && (text[p] == '-' || text[p] == '.') {
			p++
			joined = true
			continue
		}
		var parts bool
		if p, parts = betweenCodes(text, p); parts || joined {
			out = append(out, ' ')
		}
		if p == end {
			break
		}
	}
	return enoughLetters(out, end, p)
}

// longestNumber bounds what is read as one number, because that takes the square of
// the time.
const longestNumber = 2048

// bigBases are the alphabets of base58 and base62.
var bigBases = []string{numerals[1:] + "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", numerals + capitals + smalls, numerals + smalls + capitals, capitals + smalls + numerals}

// bigNumber reads base58 and base62, in which all characters are the digits of one
// number.
func bigNumber(text []byte) ([]byte, int) {
	end := 0
	for end < len(text) && end <= longestNumber && isAlnum(text[end]) {
		end++
	}
	if end < 2*fewestDecoded || end > longestNumber {
		return nil, end
	}
	for _, alphabet := range bigBases {
		if !endsInText(text[:end], alphabet) {
			continue
		}
		const digits = numerals + smalls + capitals // of package big
		number := make([]byte, end)
		for i, c := range text[:end] {
			number[i] = digits[strings.IndexByte(alphabet, c)]
		}
		if v, ok := new(big.Int).SetString(string(number), len(alphabet)); ok {
			if out := v.Bytes(); len(out) >= fewestDecoded && keepText(out) != nil {
				return out, end
			}
		}
	}
	return nil, end
}

// endsInText reports whether a number in the digits of alphabet ends in bytes of text,
// which takes little time, and hardly any number does.
func endsInText(number []byte, alphabet string) bool {
	last := uint64(0) // the last eight bytes: what is carried out of them does not come back
	for _, c := range number {
		d := strings.IndexByte(alphabet, c)
		if d < 0 {
			return false
		}
		last = last*uint64(len(alphabet)) + uint64(d)
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], last)
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7F {
			return false
		}
	}
	first := 0
	for first < 3 && b[first]&0xC0 == 0x80 { // a character that begins before
		first++
	}
	return utf8.Valid(b[first:])
}

// rot47 reads what has each printable character of ASCII 47 further on: small letters
// are then digits, signs and capitals.
func rot47(text []byte) ([]byte, int) {
	const look = 64 // bytes that tell it
	end, signs, small := 0, 0, 0
	for end < len(text) && (text[end] >= ' ' && text[end] < 0x7F && !isLower(text[end]) || text[end] == '\n') {
		if c := text[end]; c > ' ' {
			signs++
			if c >= '2' && c <= 'K' {
				small++
			}
		}
		if end++; end <= look && (signs-small)*4 > look || end == look && small*4 < signs*3 {
			return nil, end
		}
	}
	if end < fewestDecoded || end < look && small*4 < signs*3 {
		return nil, end
	}
	out := bytes.Clone(text[:end])
	for i, c := range out {
		if c > ' ' {
			out[i] = '!' + (c-'!'+47)%94
		}
	}
	return out, end
}

// filled reads letters each of which is followed by the same one, or by itself again.
func filled(text []byte) (out []byte, end int) {
	if len(text) < 2 || !isLetter(text[1]) {
		return nil, min(1, len(text))
	}
	filler := text[1]
	if text[0] == filler {
		filler = 0 // each is doubled
	}
	signs := 0 // in a row, which may have no filler
	for ; end+1 < len(text); end++ {
		c, next := text[end], text[end+1]
		isFilled := filler == 0 && next == c || filler != 0 && next == filler
		if signs++; isAlnum(c) {
			signs = 0
		}
		if signs > 2 || c >= utf8.RuneSelf || signs == 0 && !isFilled {
			break
		}
		if out = append(out, c); isFilled {
			end++
		}
	}
	return enoughLetters(out, min(end, len(text)), min(end+1, len(text)))
}

func isSelector(r rune) bool { return r >= 0xFE00 && r <= 0xFE0F || r >= 0xE0100 && r <= 0xE01EF }

// selectors reads bytes hidden as variation selectors, which no reader sees.
func selectors(text []byte) (out []byte, end int) {
	for end < len(text) {
		r, n := utf8.DecodeRune(text[end:])
		switch {
		case r >= 0xFE00 && r <= 0xFE0F:
			if len(out) > 0 { // one in front belongs to a picture
				out = append(out, byte(r-0xFE00))
			}
		case isSelector(r):
			out = append(out, byte(r-0xE0100)+16)
		default:
			return enoughLetters(out, end, end)
		}
		end += n
	}
	return enoughLetters(out, end, end)
}
