package guard

import (
	"bytes"
	"strings"
)

// Text is cut at hard breaks. No finding crosses a hard break, and whether a
// place is one depends on a few bytes around it alone. A stream can therefore
// be scanned up to its last break and give the same findings as the whole.
//
// A hard break is behind white space that follows an ordinary word of five
// letters or more: what has spaces inside, such as a card or a telephone number,
// has only short groups of letters. A new line is one too, unless it cuts a
// number in two.

const (
	// maxZone is the longest zone, in bytes. A longer one is read in windows.
	maxZone = 16 << 10
	// maxCandidate is the longest candidate. Two windows overlap by as much, so
	// that a candidate cut by one is whole in the next.
	maxCandidate = 8 << 10
	// breakLook is how many bytes behind a break decide whether it is one.
	breakLook = 12
	// breakWord is the longest ordinary word, in bytes.
	breakWord = 32
	// history is how much text before a zone may give it context, in bytes.
	history = 160
)

// isBreak reports whether there is a hard break before b[p], where 0 < p. The
// caller sees to it that b goes on for breakLook bytes, unless the text ends.
func (d *detector) isBreak(b []byte, p int) bool {
	switch b[p-1] {
	case '\n':
		return p < 2 || !opensBlock(b[p-2]) && !(p < len(b) && d.joinsLines(b, p))
	case ' ', '\t':
	default:
		return false
	}
	i := p - 2
	if i >= 0 && isStop[b[i]] {
		i--
	}
	// Five at once: nearly every word is either short or a break.
	if i < 4 || wordByte[b[i]]&wordByte[b[i-1]]&wordByte[b[i-2]]&wordByte[b[i-3]]&wordByte[b[i-4]] == 0 {
		return false
	}
	end := i
	for i -= 5; i >= 0 && end-i < breakWord && wordByte[b[i]] != 0; {
		i--
	}
	if end-i >= breakWord || isUpper(b[end]) || i >= 0 && !isWordEdge[b[i]] {
		return false
	}
	if p+2 < len(b) && mayBeMark[b[p]] && spelledMark(b[p:min(len(b), p+5)]) {
		return false
	}
	if word := b[i+1 : end+1]; d.names.joins(word) || month(word) > 0 || namesSecret(word) {
		return false
	}
	return true
}

// mayBreak marks the white space that a hard break may stand behind.
var mayBreak = byteSet(" \t\n")

// namesSecret reports whether a secret may stand behind word.
func namesSecret(word []byte) bool {
	switch lower(word[len(word)-1]) {
	case 'd', 'e', 'n', 't', 'y', 's', 'r', 'c', 'l', 'h', 'k':
	default:
		return false
	}
	if c := lower(word[0]); c == 'b' && (hasWord(word, 0, "bearer") || hasWord(word, 0, "basic")) {
		return true
	}
	return hasSecretWord(word)
}

// opensBlock reports whether c, at the end of a line, says that a value follows
// on the next, as YAML's | and > and a tag of XML do.
func opensBlock(c byte) bool { return c == '|' || c == '>' }

// cutsNumber reports whether the line that ends before b[p] may be one of two that
// share a number: digits end it, or a mark that says that it goes on, and behind
// the indentation or the mark of a quotation of the next are digits.
func cutsNumber(b []byte, p int) bool {
	before := b[p-2]
	if before == '\r' && p > 2 {
		before = b[p-3]
	}
	if !isDigit(before) && before != '-' && before != ')' && before != '\\' && before != '=' {
		return false
	}
	for q := p; q < len(b) && q-p < breakLook-1; q++ {
		switch c := b[q]; {
		case isDigit(c), c == '-' && q == p:
			return true
		case c != ' ' && c != '\t' && c != '>' && c != '#' && c != '/' && c != '-' && c != '.' && c != ')' && c != '*':
			return false
		}
	}
	return false
}

// joinsLines reports whether something may go on behind the end of the line before
// b[p]: most lines end with a stop or a letter.
func (d *detector) joinsLines(b []byte, p int) bool {
	switch c := b[p-2]; {
	case c == '.' && isDigit(b[p]):
		return p > 2 && isDigit(b[p-3]) // an IPv4 address
	case isLetter(c), c == '.', c == '@':
		if isLower(b[p]) && d.cutsAddress(b, p) {
			return true
		}
	case isDigit(c), c == '-', c == ')', c == '\\', c == '=', c == '\r':
		if cutsNumber(b, p) || wordGoesOn(b, p) || d.cutsAddress(b, p) {
			return true
		}
	default:
		return false
	}
	return byteKind[b[p]] < 8 && endsMixed(b, p) && d.cutsToken(b, p)
}

// blobLine is how long a line of base64 is that others follow, at least.
const blobLine = 56

// byteKind has a bit for digits, one for capitals, one for small letters, and one for
// what ends a word.
var byteKind = func() (t [256]uint8) {
	for c := range t {
		switch c := byte(c); {
		case isDigit(c):
			t[c] = 1
		case isUpper(c):
			t[c] = 2
		case isLower(c):
			t[c] = 4
		case !isBlobByte[c]:
			t[c] = 8
		}
	}
	return t
}()

// endsMixed reports whether the line before b[p] ends in neither a word nor a number, as
// nearly all do.
func endsMixed(b []byte, p int) bool {
	if p < 8 {
		return false
	}
	if b[p-2] == '\r' {
		p--
	}
	kinds := byteKind[b[p-2]] | byteKind[b[p-3]] | byteKind[b[p-5]] | byteKind[b[p-7]]
	return kinds < 8 && kinds&(kinds-1) != 0
}

// cutsToken reports whether the line that ends before b[p] ends in the token of a
// service, of which a part is missing, or is one of base64 that is text.
func (d *detector) cutsToken(b []byte, p int) bool {
	end := p - 1
	if b[end-1] == '\r' {
		end--
	}
	i := end
	for i > 0 && end-i < 2*blobLine && (isBlobByte[b[i-1]] || b[i-1] == '.') {
		i--
	}
	if end-i >= blobLine {
		head, ok := base64Head(b[i:])
		return ok && keepText(head[:]) != nil
	}
	for _, r := range d.prefix[b[i]] {
		if !r.weak && end-i < len(r.prefix)+r.min && bytes.HasPrefix(b[i:end], []byte(r.prefix)) {
			return true
		}
	}
	return false
}

// wordGoesOn reports whether a backslash, or the equals sign of quoted-printable, at
// the end of the line before b[p] says that the word there goes on.
func wordGoesOn(b []byte, p int) bool {
	end := p - 2
	if end < 1 || p >= len(b) || b[p-1] != '\n' {
		return false
	}
	if b[end] == '\r' && end > 0 {
		end--
	}
	return (b[end] == '\\' || b[end] == '=') && end > 0 && (isHostByte[b[end-1]] || b[end-1] == '.' || b[end-1] == '@') && (isHostByte[b[p]] || b[p] == '.' || b[p] == '@' || b[p] == '=')
}

// cutsAddress reports whether the line that ends before b[p] ends inside the host
// of an address.
func (d *detector) cutsAddress(b []byte, p int) bool {
	if !isAlnum(b[p]) || isUpper(b[p]) {
		return false
	}
	end := p - 1
	if b[end-1] == '\r' {
		end--
	}
	i := end
	for i > 0 && end-i < breakWord && (isHostByte[b[i-1]] || b[i-1] == '.') {
		i--
	}
	return i > 0 && b[i-1] == '@' && i > 1 && isAlnum(b[i-2]) && !d.endsHost(b[i:end])
}

// mayBeMark marks what a spelled mark of an address begins with.
var mayBeMark = byteSet("aAdD@([{<.")

// spelledMark reports whether a mark of an address, spelled or apart, is at the
// start of b.
func spelledMark(b []byte) bool {
	if strings.IndexByte("([{<", b[0]) >= 0 {
		b = b[1:]
	}
	switch c := b[0]; {
	case c == '@':
		return true
	case c == '.':
		return len(b) > 1 && isSpace(b[1])
	case c|0x20 == 'a':
		return len(b) > 2 && b[1]|0x20 == 't' && !isAlnum(b[2])
	case c|0x20 == 'd':
		return len(b) > 3 && b[1]|0x20 == 'o' && b[2]|0x20 == 't' && !isAlnum(b[3])
	}
	return false
}

// wordByte has a 1 for what ordinary words are made of: letters, and bytes of
// Latin, Greek and Cyrillic letters.
var wordByte = func() (t [256]uint8) {
	for c := range t {
		if isLetter(byte(c)) || c >= 0xC3 && c <= 0xCB || c >= 0xCE && c <= 0xD2 || c >= 0x80 && c < 0xC0 {
			t[c] = 1
		}
	}
	return t
}()

var isStop = byteSet(",.;:!?")

var isWordEdge = byteSet(" \t\n\r(\"'")

func byteSet(s string) (t [256]bool) {
	for i := range len(s) {
		t[s[i]] = true
	}
	return t
}

// lastBreak returns the last hard break in b that is behind from and is decided,
// or from.
func (d *detector) lastBreak(b []byte, from int, eof bool) int {
	end := len(b) - breakLook
	if eof {
		return len(b)
	}
	for p := end; p > from; p-- {
		if mayBreak[b[p-1]] && d.isBreak(b, p) {
			return p
		}
	}
	return from
}
