package guard

import (
	"strings"
	"unicode/utf8"
)

const (
	// minApart is how many characters must stand apart to be read together.
	minApart = 7
	// maxApart bounds them.
	maxApart = 256
)

// spaced reads text whose characters stand apart, such as "2 1 9 - 0 9", around
// t[i], without the spaces.
func (l *level) spaced(i int) {
	t := l.t
	if i < l.apartEnd || l.v.depth >= decodeDepth || i > 0 && t[i-1] != ' ' && !beforeApart[t[i-1]] || i+1 < len(t) && t[i+1] != ' ' {
		return
	}
	start := i
	for start >= 2 && start-2 >= l.apartEnd && t[start-1] == ' ' && (t[start-2] != ' ' || start >= 4 && t[start-4] != ' ') && (start == 2 || t[start-3] == ' ' || beforeApart[t[start-3]]) {
		start -= 2
	}
	for t[start] == ' ' {
		start++
	}
	z := l.zone
	next := &z.levels[l.v.depth+1]
	v := &next.v
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
	p := start
	for n := 0; p < len(t) && (t[p] != ' ' || p+2 < len(t) && t[p+2] != ' ') && n < maxApart && (p+1 == len(t) || t[p+1] == ' ' || endsApart(t[p+1])); n++ {
		from, to := l.v.span(p, p+1)
		v.spare.text[0] = append(v.spare.text[0], t[p])
		v.spare.from[0], v.spare.to[0] = append(v.spare.from[0], int32(from)), append(v.spare.to[0], int32(to))
		if p+1 < len(t) && t[p+1] != ' ' {
			p++
			break
		}
		p += 2
	}
	l.apartEnd = p
	if len(v.spare.text[0]) < minApart {
		return
	}
	l.readApart(next, start)
}

// readApart reads what was gathered in the spare buffers of next, from t[start]
// on.
func (l *level) readApart(next *level, start int) {
	z, v := l.zone, &next.v
	v.text, v.from, v.to, v.base = v.spare.text[0], v.spare.from[0], v.spare.to[0], 0
	v.blob, v.blobStart, v.blobEnd, v.depth = l.v.blob, l.v.blobStart, l.v.blobEnd, l.v.depth+1
	if isDirty(v.text) {
		v.normalise(1)
	}
	outer := z.outer
	z.outer = *l.context(start)
	next.read(z, 0, -1)
	z.outer = outer
}

// beforeApart marks what may stand right before the first of the characters.
var beforeApart = byteSet("([{<>\"'`=:,;|*_~\n\t")

// endsApart reports whether c may stand right behind the last of the characters.
func endsApart(c byte) bool { return isStop[c] || isCloser[c] || c == '\n' || c == '<' }

// isApartSep marks what may stand between single characters, besides a space. Lists and
// tables of numbers have commas, bars and new lines.
var isApartSep = byteSet("-._/*~=")

// parted reads characters that another separator parts, or two spaces, around t[i],
// such as "2-1-9---0-9" and "2.1.9.-.0.9".
func (l *level) parted(i int) {
	t := l.t
	if i < l.partedEnd || l.v.depth >= decodeDepth || i+4 >= len(t) {
		return
	}
	c, size := t[i+1], 1
	if c == ' ' && t[i+2] == ' ' {
		size = 2
	} else if !isApartSep[c] {
		return
	}
	isSep := func(p int) bool { return p >= 0 && p+size <= len(t) && t[p] == c && t[p+size-1] == c }
	stride := size + 1
	if !isSep(i + 1 + stride) {
		return // most numbers
	}
	start := i
	for start >= stride && start-stride >= l.partedEnd && isSep(start-size) && (start == stride || isSep(start-stride-size) || !isAlnum(t[start-stride-1])) {
		start -= stride
	}
	if start > 0 && isAlnum(t[start-1]) {
		return
	}
	next := &l.zone.levels[l.v.depth+1]
	v := &next.v
	text, from, to := v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
	p := start
	for p < len(t) && len(text) < maxApart && (p+1 == len(t) || !isAlnum(t[p+1])) {
		first, last := l.v.span(p, p+1)
		text, from, to = append(text, t[p]), append(from, int32(first)), append(to, int32(last))
		if !isSep(p + 1) {
			p++
			break
		}
		p += stride
	}
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = text, from, to
	l.partedEnd = p
	if len(text) >= minApart {
		l.readApart(next, start)
	}
}

// codes reads a row of character codes around t[i], such as "32 31 39 2d",
// 0x32,0x31 and U+0032 U+0031, in hexadecimal or decimal.
func (l *level) codes(i int) {
	t := l.t
	if i < l.codesEnd || l.v.depth >= decodeDepth || i+3 >= len(t) {
		return
	}
	// The first is two or three digits, or has 0x or U+00 before it.
	if !isCodeGap[t[i+2]] && !isCodeGap[t[i+3]] && !(i+8 < len(t) && isCodeGap[t[i+8]]) && t[i+1]|0x20 != 'x' && (i == 0 || t[i-1] != '+') {
		return
	}
	for low := max(l.codesEnd, i-6); i > low && (isAlnum(t[i-1]) || t[i-1] == '+'); {
		i--
	}
	for low := l.codesEnd + 3; i >= low && hexDigit(t[i]) >= 8 && hexDigit(t[i]) < 12 && isCodeGap[t[i-1]] && hexDigit(t[i-2]) >= 0 && hexDigit(t[i-3]) >= 8; {
		i -= 3 // to the first byte of a character
	}
	if i+3*minApart-1 > len(t) || !isCodeByte[t[i+6]] || !isCodeByte[t[i+10]] || !isCodeByte[t[i+14]] || !mayBeCodes(t, i) {
		return // too short, or words
	}
	for _, base := range [...]int{16, 10, 2} {
		// Most numbers are not the first of such a row.
		if _, n := charCode(t[i:], base); n == 0 || i+n+2 >= len(t) || !isCodeGap[t[i+n]] {
			continue
		}
		next := &l.zone.levels[l.v.depth+1]
		v := &next.v
		text, from, to := v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
		p := i
		for len(text) < maxApart {
			c, n := charCode(t[p:], base)
			if n == 0 {
				break
			}
			start, end := l.v.span(p, p+n)
			text, from, to = append(text, c), append(from, int32(start)), append(to, int32(end))
			p += n
			gap := 0
			for p+gap < len(t) && gap < 3 && isCodeGap[t[p+gap]] {
				gap++
			}
			if gap == 0 {
				break
			}
			p += gap
		}
		text = keepStart(text)
		v.spare.text[0], v.spare.from[0], v.spare.to[0] = text, from[:len(text)], to[:len(text)]
		if len(text) >= minApart {
			l.codesEnd = max(l.codesEnd, p)
			l.readApart(next, i)
		}
	}
}

// keepStart returns b up to where it is no UTF-8.
func keepStart(b []byte) []byte {
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return b[:i]
		}
		i += size
	}
	return b
}

// isCodeGap marks what stands between character codes.
var isCodeGap = byteSet(" ,:\n-;._|/")

// isCodeByte marks what a row of codes has in it.
var isCodeByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isCodeGap[c] || hexDigit(byte(c)) >= 0 || strings.IndexByte("xXuU+", byte(c)) >= 0
	}
	return t
}()

// mayBeCodes reports, cheaply, whether four groups of about the same length are at
// t[p], as in most texts they are not.
func mayBeCodes(t []byte, p int) bool {
	width := 0
	for range 4 {
		q := p
		for q < len(t) && q-p < 9 && (isAlnum(t[q]) || t[q] == '+') {
			q++
		}
		size := q - p
		if size < 2 || size > 6 && size != 8 || width > 0 && (size < width-1 || size > width+1) || q >= len(t) || !isCodeGap[t[q]] {
			return false
		}
		for width, p = size, q+1; p < len(t) && p-q < 3 && isCodeGap[t[p]]; {
			p++
		}
	}
	return true
}

// charCode reads the code of a printable character at the start of b, or of a byte of
// one that is not ASCII: two hexadecimal digits, with 0x before them or not, or four
// behind U+; or two or three decimal ones. It returns its length, or 0.
func charCode(b []byte, base int) (c byte, n int) {
	width := 2
	if base == 16 && len(b) > 2 {
		switch {
		case b[0] == '0' && b[1]|0x20 == 'x':
			n = 2
		case b[0]|0x20 == 'u' && b[1] == '+':
			n, width = 2, 4
		}
	}
	start, v := n, 0
	for n < len(b) && n-start < 9 && isAlnum(b[n]) {
		d := hexDigit(b[n])
		if d < 0 || d >= base {
			return 0, 0
		}
		v = v*base + d
		n++
	}
	if base == 16 && n-start != width || base == 10 && (n-start < 2 || n-start > 3) || base == 2 && n-start != 8 || v < ' ' && v != '\n' && v != '\r' || v == 0x7F || v > 0xFF {
		return 0, 0
	}
	return byte(v), n
}
