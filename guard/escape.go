package guard

import (
	"bytes"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// unescape reads one escape at the start of b: %2D, %u002d, &#45;, &#x2d;,
// &hyphen;, \u002d, \u{2d}, \x2d, \055, \n, \\u002d. It returns what it stands for and its length, or 0. For
// an HTML tag that only changes how text looks, the length is negative.
func unescape(b []byte) (r rune, size int) {
	switch b[0] {
	case '%':
		return unpercent(b)
	case '&':
		return unentity(b)
	case '<':
		return 0, -inlineTag(b)
	}
	return unbackslash(b)
}

// unpercent reads %hh, and as many more as make a character of UTF-8, or %uhhhh, in hex digits h.
func unpercent(b []byte) (rune, int) {
	if len(b) >= 6 && b[1]|0x20 == 'u' {
		if v, ok := hexValue(b[2:6]); ok {
			return v, 6
		}
	}
	var buf [utf8.UTFMax]byte
	n := 0
	for n < len(buf) && len(b) >= 3*n+3 && b[3*n] == '%' {
		v, ok := hexValue(b[3*n+1 : 3*n+3])
		if !ok {
			break
		}
		buf[n] = byte(v)
		if n++; utf8.FullRune(buf[:n]) {
			break
		}
	}
	if n == 0 {
		return 0, 0
	}
	r, size := utf8.DecodeRune(buf[:n])
	return r, 3 * size
}

// maxEntity is the longest HTML entity that is read, in bytes.
const maxEntity = 12

// unentity reads an HTML entity. The semicolon may be missing after a number,
// as browsers allow.
func unentity(b []byte) (rune, int) {
	if len(b) < 3 {
		return 0, 0
	}
	if b[1] == '#' {
		digits, base := b[2:], rune(10)
		start := 2
		if digits[0] == 'x' || digits[0] == 'X' {
			digits, base, start = digits[1:], 16, 3
		}
		r, n := rune(0), 0
		for n < len(digits) && n < 8 {
			v := hexDigit(digits[n])
			if v < 0 || rune(v) >= base {
				break
			}
			r = r*base + rune(v)
			n++
		}
		if n == 0 || r > utf8.MaxRune {
			return 0, 0
		}
		size := start + n
		if size < len(b) && b[size] == ';' {
			size++
		}
		return r, size
	}
	end := bytes.IndexByte(b[:min(len(b), maxEntity)], ';')
	if end < 2 {
		return 0, 0
	}
	r, ok := entityNames[string(b[1:end])]
	if !ok {
		r, ok = entityNames[strings.ToLower(string(b[1:end]))]
	}
	if !ok {
		return 0, 0
	}
	return r, end + 1
}

// entityNames are the named entities that matter to a matcher.
var entityNames = map[string]rune{
	"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\'', "nbsp": ' ', "hyphen": '-', "dash": '-', "ndash": '-', "mdash": '-',
	"minus": '-', "shy": 0xAD, "period": '.', "comma": ',', "colon": ':', "semi": ';', "commat": '@', "lpar": '(', "rpar": ')',
	"plus": '+', "sol": '/', "num": '#', "percnt": '%', "lowbar": '_', "equals": '=', "tab": ' ', "newline": '\n', "ensp": ' ',
	"emsp": ' ', "thinsp": ' ', "zwj": 0x200D, "zwnj": 0x200C, "bsol": '\\', "ast": '*', "excl": '!', "dollar": '$', "grave": '`',
	"lsqb": '[', "rsqb": ']', "lcub": '{', "rcub": '}', "verbar": '|',
}

// maxEscapes is how many backslashes in a row are read.
const maxEscapes = 15

// unbackslash reads an escape of JSON, JavaScript, Go or C.
func unbackslash(b []byte) (rune, int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case 'n', 'r', 't':
		return ' ', 2
	case '\\': // what was escaped again, as JSON in a string of JSON is
		for n := 2; n < len(b) && n <= maxEscapes; n++ {
			if c := b[n]; c == 'u' || c == 'x' || c == 'U' {
				if r, size := unbackslash(b[n-1:]); size > 0 {
					return r, n - 1 + size
				}
			}
			if b[n] != '\\' {
				break
			}
		}
	case '0', '1':
		if r, size := unstyle(b); size > 5 || size == 5 && b[4] != ' ' {
			return r, size
		}
		if len(b) >= 4 && b[2]-'0' < 8 && b[3]-'0' < 8 {
			return rune(b[1]-'0')<<6 | rune(b[2]-'0')<<3 | rune(b[3]-'0'), 4
		}
	case 'o':
		return unbraced(b, 2, 8)
	case 'N':
		if len(b) > 6 && b[2] == '{' && b[3]|0x20 == 'u' && b[4] == '+' {
			return unbraced(b, 4, 16)
		}
	case '/', '"', '\'', '-', '.', '@', '_', '(', ')', '+':
		return rune(b[1]), 2
	case 'x':
		if r, size := unbraced(b, 2, 16); size > 0 {
			return r, size
		}
		if len(b) >= 4 {
			if v, ok := hexValue(b[2:4]); ok {
				return v, 4
			}
		}
	case 'U':
		if len(b) >= 10 {
			if v, ok := hexValue(b[2:10]); ok && v <= utf8.MaxRune {
				return v, 10
			}
		}
	case 'u':
		if len(b) > 4 && b[2] == '{' {
			end := bytes.IndexByte(b[:min(len(b), 12)], '}')
			if end > 3 {
				if v, ok := hexValue(b[3:end]); ok && v <= utf8.MaxRune {
					return v, end + 1
				}
			}
			return 0, 0
		}
		if len(b) < 6 {
			return 0, 0
		}
		v, ok := hexValue(b[2:6])
		if !ok {
			return 0, 0
		}
		if utf16.IsSurrogate(v) && len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
			if low, ok := hexValue(b[8:12]); ok {
				return utf16.DecodeRune(v, low), 12
			}
		}
		return v, 6
	}
	return unstyle(b)
}

// unbraced reads the code in braces behind b[at-1], as in \x{40}, \o{100} and
// \N{U+0040}: its digits begin at b[at+1].
func unbraced(b []byte, at, base int) (rune, int) {
	if at >= len(b) || b[at] != '{' && b[at] != '+' {
		return 0, 0
	}
	v := rune(0)
	for p := at + 1; p < len(b) && p < at+9; p++ {
		d := hexDigit(b[p])
		if d < 0 || d >= base {
			if b[p] == '}' && p > at+1 && v <= utf8.MaxRune {
				return v, p + 1
			}
			break
		}
		v = v*rune(base) + rune(d)
	}
	return 0, 0
}

// unstyle reads a printable character of ASCII as style sheets escape it: in six
// hexadecimal digits, or in two to five with a space behind.
func unstyle(b []byte) (rune, int) {
	v, n := rune(0), 1
	for n < len(b) && n < 7 {
		d := hexDigit(b[n])
		if d < 0 {
			break
		}
		v = v<<4 | rune(d)
		n++
	}
	space := n < len(b) && b[n] == ' '
	if v < ' ' || v > '~' || n < 7 && (n < 3 || !space) {
		return 0, 0
	}
	if space && n < 7 {
		n++ // which ends the escape
	}
	return v, n
}

func hexValue(b []byte) (rune, bool) {
	v := rune(0)
	for _, c := range b {
		d := hexDigit(c)
		if d < 0 {
			return 0, false
		}
		v = v<<4 | rune(d)
	}
	return v, true
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// inlineTag returns the length of the tag or comment at the start of b if it only
// changes how text looks, or 0.
func inlineTag(b []byte) int {
	b = b[:min(len(b), 64)]
	end := bytes.IndexByte(b, '>')
	if end < 2 {
		return 0
	}
	name := b[1:end]
	if bytes.HasPrefix(name, []byte("!--")) && bytes.HasSuffix(name, []byte("--")) {
		return end + 1
	}
	if name[0] == '/' {
		name = name[1:]
	}
	if i := bytes.IndexAny(name, " /"); i >= 0 {
		name = name[:i]
	}
	switch strings.ToLower(string(name)) {
	case "b", "i", "u", "s", "em", "strong", "span", "font", "mark", "small", "big", "sup", "sub", "tt", "code", "wbr", "bdi", "bdo", "ins", "del", "nobr":
		return end + 1
	}
	return 0
}
