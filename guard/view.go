package guard

import (
	"bytes"
	"unicode/utf8"
)

// decodeDepth is how many encodings, one inside the other, are looked through.
const decodeDepth = 2

// escapeDepth is the same for escapes.
const escapeDepth = 3

// view is text as the matchers see it: compatibility forms, dashes, spaces,
// digits of other scripts and look-alike letters are plain ASCII, invisible
// characters are gone, and escapes are what they stand for. It knows where each
// byte came from.
type view struct {
	text []byte
	// from and to hold, for each byte of text, where its source begins and
	// ends. Nil: text is the source, moved by base.
	from, to []int32
	base     int
	// blob is set if text was decoded as a whole, as base64 is. Every span of
	// it is then all of the source between blobStart and blobEnd.
	blob               bool
	blobStart, blobEnd int
	depth              int
	keepTags           bool // also tags of HTML that only change how text looks
	spare              spareView
}

// spareView holds buffers of a view that are used again.
type spareView struct {
	text     [escapeDepth][]byte
	from, to [escapeDepth][]int32
}

// reset makes v the view of src, whose first byte is at offset base.
func (v *view) reset(src []byte, base int) {
	v.text, v.from, v.to, v.base, v.blob, v.depth = src, nil, nil, base, false, 0
	if isDirty(src) {
		v.normalise(0)
	}
}

// normalise makes v.text plain, with the spare buffers from first on.
func (v *view) normalise(first int) {
	for pass := first; pass < escapeDepth; pass++ {
		n := normaliser{dst: v.spare.text[pass][:0], from: v.spare.from[pass][:0], to: v.spare.to[pass][:0], src: v.text, srcFrom: v.from, srcTo: v.to, keepTags: v.keepTags}
		n.run()
		v.spare.text[pass], v.spare.from[pass], v.spare.to[pass] = n.dst, n.from, n.to
		v.text, v.from, v.to = n.dst, n.from, n.to
		if !n.unescaped || !bytes.ContainsAny(n.dst, `%&\`) {
			return
		}
	}
}

// span returns where v.text[i:j], which is not empty, is in the source.
func (v *view) span(i, j int) (start, end int) {
	switch {
	case v.blob:
		return v.blobStart, v.blobEnd
	case v.from == nil:
		return v.base + i, v.base + j
	}
	return v.base + int(v.from[i]), v.base + int(v.to[j-1])
}

// isDirty reports whether anything in src may have to be normalised.
func isDirty(src []byte) bool {
	for i := 0; i < len(src); i++ {
		for ; i+8 <= len(src); i += 8 {
			w := (*[8]byte)(src[i:])
			if dirtyBit[w[0]]|dirtyBit[w[1]]|dirtyBit[w[2]]|dirtyBit[w[3]]|dirtyBit[w[4]]|dirtyBit[w[5]]|dirtyBit[w[6]]|dirtyBit[w[7]] != 0 {
				break
			}
		}
		if i == len(src) {
			break
		}
		if !dirtyByte[src[i]] {
			continue
		}
		switch c := src[i]; {
		case isControl(c):
		case c < utf8.RuneSelf:
			if _, size := unescape(src[i:]); size == 0 {
				continue
			}
		case c == 0xE2 && i+2 < len(src) && src[i+1] == 0x80 && src[i+2] >= 0x98 && src[i+2] <= 0xA1:
			continue // quotation marks and daggers
		}
		return true
	}
	return false
}

// isControl reports whether c is a control character that is no white space. It
// leaves no mark.
func isControl(c byte) bool {
	return c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7F
}

// escSequence returns the length of a sequence for terminals at the start of b, as
// for colours, or 1.
func escSequence(b []byte) int {
	if len(b) < 3 || b[0] != 0x1B || b[1] != '[' {
		return 1
	}
	for i := 2; i < min(len(b), 24); i++ {
		if b[i] >= '@' && b[i] <= '~' {
			return i + 1
		}
	}
	return 1
}

// dirtyByte marks bytes that begin something to normalise: an escape, a control
// character, or a character of a block other than those of Latin letters with accents.
var dirtyByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isControl(byte(c)) || c == '%' || c == '&' || c == '<' || c == '\\' || c >= 0xC0 && (c < 0xC3 || c > 0xC8)
	}
	return t
}()

// dirtyBit is dirtyByte with 1 for true, so that several can be joined.
var dirtyBit = func() (t [256]uint8) {
	for c := range t {
		if dirtyByte[c] {
			t[c] = 1
		}
	}
	return t
}()

// normaliser makes the text of a view.
type normaliser struct {
	dst            []byte
	from, to       []int32
	src            []byte
	srcFrom, srcTo []int32 // nil: the identity
	unescaped      bool
	keepTags       bool
}

func (n *normaliser) run() {
	for i := 0; i < len(n.src); {
		c := n.src[i]
		if !dirtyByte[c] && c < utf8.RuneSelf {
			n.put(c, i, i+1)
			i++
			continue
		}
		if isControl(c) {
			i += escSequence(n.src[i:])
			continue
		}
		if c < utf8.RuneSelf {
			r, size := unescape(n.src[i:])
			if size < 0 && !n.keepTags { // a tag, which leaves no mark
				i -= size
				continue
			}
			if size <= 0 {
				n.put(c, i, i+1)
				i++
				continue
			}
			n.unescaped = true
			n.putRune(r, i, i+size)
			i += size
			continue
		}
		r, size := utf8.DecodeRune(n.src[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			n.put(c, i, i+1)
		case isTag(r):
			i = n.putTags(i)
			continue
		default:
			n.putRune(r, i, i+size)
		}
		i += size
	}
}

// put appends c, which stands for src[i:j].
func (n *normaliser) put(c byte, i, j int) {
	n.dst = append(n.dst, c)
	if n.srcFrom == nil {
		n.from, n.to = append(n.from, int32(i)), append(n.to, int32(j))
		return
	}
	n.from, n.to = append(n.from, n.srcFrom[i]), append(n.to, n.srcTo[j-1])
}

// putRune appends what r means to the matchers.
func (n *normaliser) putRune(r rune, i, j int) {
	var buf [16]byte
	for _, c := range appendPlain(buf[:0], r) {
		n.put(c, i, j)
	}
}

// putTags handles a run of tag characters at src[i], which are invisible. Four
// or more in a row spell something; fewer only stand in the way.
func (n *normaliser) putTags(i int) int {
	end := i
	for count := 0; ; count++ {
		r, size := utf8.DecodeRune(n.src[end:])
		if !isTag(r) {
			if count < 4 {
				return end
			}
			break
		}
		end += size
	}
	for i < end {
		r, size := utf8.DecodeRune(n.src[i:])
		if c := r - tagBase; c >= ' ' && c < 0x7F {
			n.put(byte(c), i, i+size)
		}
		i += size
	}
	return end
}

const tagBase = 0xE0000

func isTag(r rune) bool { return r > tagBase && r <= tagBase+0x7F }
