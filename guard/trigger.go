package guard

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Trigger classes of bytes. Small letters and trigBig, of others that encodings
// have, begin nothing alone; trigNone begins nothing at all.
const (
	trigWord = iota
	trigDigit
	trigAt
	trigPoint
	trigColon
	trigEqual
	trigDash
	trigQuote
	trigEscape
	trigRune
	trigBig  = 0x40
	trigNone = 0x80
	trigIdle = trigBig | trigNone
)

// longWord is how long a word is that is looked at because it may be an encoding
// without a digit, in bytes. Of these, skip finds all that encodes accepts, wherever it
// begins to look.
const longWord = 15

var triggerOf = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = trigDigit
		case c == '@':
			t[c] = trigAt
		case c == '.':
			t[c] = trigPoint
		case c == ':':
			t[c] = trigColon
		case c == '=':
			t[c] = trigEqual
		case c == '-':
			t[c] = trigDash
		case c == '"':
			t[c] = trigQuote
		case c == '%' || c == '&' || c == '\\':
			t[c] = trigEscape
		case dirtyByte[c] && c >= 0x80 && (c < 0xC9 || c > 0xD1): // Greek and Cyrillic letters begin nothing
			t[c] = trigRune
		case !isBlobByte[c]:
			t[c] = trigNone
		case !isLower(byte(c)):
			t[c] = trigBig
		}
	}
	return t
}()

// skip returns the first place in b[i:] whose byte has a class, or that is in a
// word of longWord bytes or more, or len(b).
func skip(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		w := (*[8]byte)(b[i:])
		c0, c1, c2, c3, c4, c5, c6, c7 := triggerOf[w[0]], triggerOf[w[1]], triggerOf[w[2]], triggerOf[w[3]], triggerOf[w[4]], triggerOf[w[5]], triggerOf[w[6]], triggerOf[w[7]]
		any := c0 | c1 | c2 | c3 | c4 | c5 | c6 | c7
		if any&^trigIdle != 0 {
			low := uint32(c0) | uint32(c1)<<8 | uint32(c2)<<16 | uint32(c3)<<24
			high := uint32(c4) | uint32(c5)<<8 | uint32(c6)<<16 | uint32(c7)<<24
			return i + bits.TrailingZeros64((uint64(high)<<32|uint64(low))&^(trigIdle*0x0101010101010101))/8
		}
		// Eight of a word in a row, with a capital: every encoding of fifteen has that
		// somewhere.
		if any == trigBig && isLong(b, i) {
			return i
		}
	}
	for first := i; i < len(b) && triggerOf[b[i]]&^trigIdle == 0; i++ {
		if i == first && isWord(b[i]) && isLong(b, i) {
			return i
		}
	}
	return i
}

// nextDot returns the first place in b[i:] where the word dot begins, which may be
// the point of an address, or len(b).
func nextDot(b []byte, i int) int {
	const ones = 0x0101010101010101
	for ; i+10 <= len(b); i += 8 {
		w := (*[10]byte)(b[i:])
		d := binary.LittleEndian.Uint64(w[0:8]) ^ 'd'*ones
		o := binary.LittleEndian.Uint64(w[1:9]) ^ 'o'*ones
		t := binary.LittleEndian.Uint64(w[2:10]) ^ 't'*ones
		m := (d | o | t) &^ (0x20 * ones)
		if (m-ones)&^m&(0x80*ones) == 0 {
			continue
		}
		for p := i; p < i+8; p++ {
			if isDotAt(b, p) {
				return p
			}
		}
	}
	for ; i < len(b) && !isDotAt(b, i); i++ {
	}
	return i
}

func isWord(c byte) bool { return triggerOf[c]&^trigBig == 0 }

// isLong reports whether the word around b[i] has longWord bytes.
func isLong(b []byte, i int) bool {
	end := i
	for low := max(0, i-longWord); i > low && isWord(b[i-1]); {
		i--
	}
	for end < len(b) && end-i < longWord && isWord(b[end]) {
		end++
	}
	return end-i >= longWord
}

// wordAround returns the bytes of a word around b[i], which is one: all,
// or more than maxBlob.
func wordAround(b []byte, i int) (start, end int) {
	start, end = i, i
	for start > 0 && i-start <= maxBlob && isWord(b[start-1]) {
		start--
	}
	for end < len(b) && end-i <= maxBlob && isWord(b[end]) {
		end++
	}
	return start, end
}

// encodes reports whether word may be base64 or base32 without a digit, or is too
// long to tell.
func encodes(word []byte) bool {
	changes, small, row := 0, 0, 0
	for _, c := range word {
		if isLower(c) {
			small++
			if row++; row == 8 {
				return false // which skip does not see
			}
			continue
		}
		if row > 0 {
			changes++
		}
		row = 0
	}
	if changes < 2 && small > 0 {
		return false // a word, or two
	}
	if len(word) <= 64 { // less to clear
		var buf [64]byte
		return decodeBlob(buf[:0], word) != nil
	}
	var buf [maxBlob]byte
	return len(word) > maxBlob || decodeBlob(buf[:0], word) != nil
}

// marked reports whether the word b[start:end] ends what begins as the token of a
// service does. By chance one in thirty has no digit, which would tell.
func (d *detector) marked(b []byte, start, end int) bool {
	for low := max(0, start-12); start > low && isTokenByte[b[start-1]] && b[start-1] != '='; {
		start--
	}
	for _, r := range d.prefix[b[start]] {
		if !r.weak && end-start >= len(r.prefix)+r.min && string(b[start:start+len(r.prefix)]) == r.prefix {
			return true
		}
	}
	return false
}

// nextTrigger returns the first place t in b[from:limit] that may be part of a
// finding, or -1; and the first that a matcher would look at, which alone is no
// reason to read the zone. It lets most of what ordinary text has pass, such as full
// stops, short numbers and times of day. What can only score less than min passes, too.
func (d *detector) nextTrigger(b []byte, from, limit int, min float32) (first, t int) {
	if d.names != nil {
		return from, from
	}
	b, first = b[:limit], -1
	for i := skip(b, from); i < len(b); i = skip(b, i+1) {
		hit := true
		switch triggerOf[b[i]] {
		case trigWord, trigBig:
			start, end := wordAround(b, i)
			if hit = encodes(b[start:end]) || d.marked(b, start, end); !hit {
				i = end - 1
				continue
			}
			i = max(start, from)
		case trigDigit:
			var end int
			if end, hit = d.plainNumber(b, i, min, true); !hit {
				i = end
				continue
			}
		case trigPoint:
			if i == 0 || i+1 >= len(b) || !isHostByte[b[i-1]] || !isHostByte[b[i+1]] {
				continue
			}
			hit = i > from && (d.mayBeHost(b, i) || macQuads(b, i-4))
		case trigColon:
			hit = mayBeNet(b, i) || i+1 < len(b) && keyBefore(b, i)
		case trigEqual:
			hit = padsBlob(b, i) || keyBefore(b, i) || quotesByte(b, i)
		case trigDash:
			hit = i+2 < len(b) && (b[i+1] == '-' && pemHeader(b[i:]) > 0 || hexDigit(b[i+1]) >= 0 && hexDigit(b[i+2]) >= 0 && macPairs(b, i-2, '-'))
		case trigQuote:
			hit = i+2 < len(b) && b[i+1] == ',' && keyBefore(b, i)
		case trigEscape:
			_, size := unescape(b[i:])
			hit = size > 0
		case trigRune:
			r, _ := utf8.DecodeRune(b[i:])
			hit = makesTrigger(r)
		}
		if first < 0 {
			first = i
		}
		if hit {
			return first, i
		}
	}
	return first, -1
}

// mayBeNet reports whether the colon b[i] may be in a URL or an address.
func mayBeNet(b []byte, i int) bool {
	if i+1 >= len(b) {
		return i > 0 && b[i-1] == ':'
	}
	switch c := b[i+1]; {
	case c == '/':
		return i+2 < len(b) && b[i+2] == '/'
	case c == ':':
		return i == 0 || !isLetter(b[i-1]) || hexDigit(b[i-1]) >= 0
	case hexDigit(c) >= 0:
		// Two colons, or pairs of hex digits.
		return i > 0 && hexDigit(b[i-1]) >= 0 && (i+3 < len(b) && hexDigit(b[i+2]) >= 0 || i+2 < len(b) && b[i+2] == ':')
	}
	return false
}

// mayBeHost reports whether a known domain ends behind the point b[i], or a
// number begins there.
func (d *detector) mayBeHost(b []byte, i int) bool {
	if isDigit(b[i+1]) {
		return false // digits are triggers themselves
	}
	end := i + 1
	for end < len(b) && (isHostByte[b[end]] || b[end] == '.') && end-i < maxHost {
		end++
	}
	for end > i+1 && (b[end-1] == '.' || b[end-1] == '-') {
		end--
	}
	return d.isTLD(lastLabel(b[i+1 : end]))
}

// makesTrigger reports whether r stands for a digit, or for punctuation that is
// a trigger.
func makesTrigger(r rune) bool {
	switch {
	case r < 0x660:
		return r == 0xB2 || r == 0xB3 || r == 0xB9
	case r >= 0x2010 && r < 0x2070 && r != 0x2024, r >= 0x3040 && r < 0xA000, r >= 0xAC00 && r < 0xD800:
		return false
	}
	var buf [16]byte
	for _, c := range appendPlain(buf[:0], r) {
		if isDigit(c) || c == '@' || c == '.' || c == ':' || c == '=' {
			return true
		}
	}
	return isTag(r)
}

// padsBlob reports whether the equals sign b[i] is behind a run that may be base64
// or base32, for those that have no digit.
func padsBlob(b []byte, i int) bool {
	n := 0
	for n < i && n < minBlob && isBlobByte[b[i-1-n]] {
		n++
	}
	return n == minBlob
}
