package guard

import (
	"bytes"
)

// numbers decodes a row of character codes: 59 6f 75, 0x59,0x6f, 59:6f, U+0059
// U+006F, or in binary, octal or decimal. A run of hexadecimal digits without gaps is a blob.
// If there is none, it returns nil, and where it stopped.
func numbers(text []byte) (out []byte, end int) {
	const fewest = 5
	stop := 0
	for _, base := range [...]int{2, 16, 8, 10} {
		row, last, i := numbersIn(text, base)
		// The first codes of a row may be of another base, too: most of it tells.
		if len(row) >= fewest && last > end {
			out, end = row, last
		}
		stop = max(stop, i)
	}
	if end > 0 {
		return out, end
	}
	return nil, min(stop+codeLook, len(text))
}

// numbersIn decodes a row of character codes in base, and returns where it ends, and
// where reading stopped.
func numbersIn(text []byte, base int) (out []byte, end, stop int) {
	i := 0
	for i < len(text) {
		width := 2
		switch {
		case base != 16 || i+1 >= len(text):
		case text[i] == '0' && text[i+1]|0x20 == 'x':
			i += 2
		case text[i]|0x20 == 'u' && text[i+1] == '+':
			i, width = i+2, 4
		}
		code, n := digits(text[i:], base)
		if n == 0 || base == 2 && n != 8 || base == 16 && n != width || base == 8 && n < 2 || code >= 0x7F {
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
	return out, end, i
}

// codeLook is how far a character code and the gap behind it reach, in bytes.
const codeLook = 10 + 3 + 16

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
