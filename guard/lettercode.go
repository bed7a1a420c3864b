package guard

import (
	"bytes"
	"math/big"
	"strings"
	"unicode/utf8"
)

// Ways to write text that are no encoding in blocks: as a dump, as codes and words for
// letters, as one number, with something behind each letter. Each function reads what
// begins at the start of a text and returns what it stands for and its length, or 0.

// hexDump reads lines of an offset, sixteen bytes in hexadecimal, and the same as
// text, as xxd and hexdump -C write them.
func hexDump(text []byte) (out []byte, end int) {
	lines := 0
	for end < len(text) {
		line := text[end:]
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line = line[:n+1]
		}
		offset := 0
		for offset < len(line) && hexDigit(line[offset]) >= 0 {
			offset++
		}
		if offset < 6 || offset > 10 || offset == len(line) || line[offset] != ':' && line[offset] != ' ' {
			break
		}
		before := len(out)
		high := -1
		for _, c := range line[offset:] {
			d := hexDigit(c)
			if d < 0 && (c != ' ' && c != ':' || high >= 0) || len(out)-before == 16 {
				break
			}
			switch {
			case d < 0:
			case high < 0:
				high = d
			default:
				out, high = append(out, byte(high<<4|d)), -1
			}
		}
		if len(out) == before || !readable(out[before:]) {
			out = out[:before]
			break
		}
		end += len(line)
		lines++
	}
	if lines < 2 {
		return nil, 0
	}
	return out, end
}

// morseLetters has the letter of each row of dots and dashes, whose bits, behind a
// leading 1, are its place.
const morseLetters = "  etianmsurwdkgohvf l pjbxcyzq  54 3   2       16       7   8 90"

// fewestLetters is how many letters written as codes or words make a text.
const fewestLetters = 8

// morse reads Morse code, in which a slash or a new line parts words.
func morse(text []byte) (out []byte, end int) {
	for p := 0; p < len(text); {
		code := 1
		for p < len(text) && (text[p] == '.' || text[p] == '-' || text[p] == '_') && code < 1<<8 {
			code <<= 1
			if text[p] != '.' {
				code |= 1
			}
			p++
		}
		if code == 1 {
			break
		}
		letter := byte(' ')
		if code < len(morseLetters) {
			letter = morseLetters[code]
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
	return enoughLetters(out, end)
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

func enoughLetters(out []byte, end int) ([]byte, int) {
	letters := 0
	for _, c := range out {
		if isAlnum(c) {
			letters++
		}
	}
	if letters < fewestLetters {
		return nil, 0
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
	var buf [10]byte
	for p := 0; p < len(text); {
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
	return enoughLetters(out, end)
}

// letterNumbers reads letters as their numbers in the alphabet.
func letterNumbers(text []byte) (out []byte, end int) {
	joined := false // the letters of a word, so that a space is behind it
	for p := 0; p < len(text) && isDigit(text[p]); {
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
	return enoughLetters(out, end)
}

// longestNumber bounds what is read as one number, because that takes the square of
// the time.
const longestNumber = 2048

// bigNumber reads base58 and base62, in which all characters are the digits of one
// number.
func bigNumber(text []byte) ([]byte, int) {
	end := 0
	for end < len(text) && end <= longestNumber && isAlnum(text[end]) {
		end++
	}
	if end < 2*fewestDecoded || end > longestNumber {
		return nil, 0
	}
	for _, alphabet := range [...]string{numerals[1:] + "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", numerals + capitals + smalls, numerals + smalls + capitals, capitals + smalls + numerals} {
		const digits = numerals + smalls + capitals // of package big
		number := make([]byte, end)
		for i, c := range text[:end] {
			d := strings.IndexByte(alphabet, c)
			if d < 0 {
				number = nil
				break
			}
			number[i] = digits[d]
		}
		if v, ok := new(big.Int).SetString(string(number), len(alphabet)); ok {
			if out := v.Bytes(); len(out) >= fewestDecoded && keepText(out) != nil {
				return out, end
			}
		}
	}
	return nil, 0
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
		if end++; end == look && small*4 < signs*3 {
			return nil, 0
		}
	}
	if end < fewestDecoded || end < look && small*4 < signs*3 {
		return nil, 0
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
		return nil, 0
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
	return enoughLetters(out, min(end, len(text)))
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
			return enoughLetters(out, end)
		}
		end += n
	}
	return enoughLetters(out, end)
}
