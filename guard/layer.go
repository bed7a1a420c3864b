package guard

import (
	"bytes"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// layerDepth is how many encodings, one inside the other, are undone to look
// for a prompt or a tag.
const layerDepth = 3

// A layer is a reading of a text: as it stands, or with what is encoded in it
// replaced by what that stands for. Unlike the layers of a view it is one text,
// so that words keep their neighbours when each line is encoded alone. Byte i
// was made from the bytes [from[i], to[i]) of the original; if from is nil,
// from itself.
type layer struct {
	text     []byte
	from, to []int32
}

// cut returns how many bytes of l can be cut off between two words so that what they
// were made from ends at limit at the latest, and where that ends.
func (l *layer) cut(limit int) (k, at int) {
	k = limit
	if l.from != nil {
		k = sort.Search(len(l.to), func(i int) bool { return int(l.to[i]) > limit })
	}
	for k > 0 && !l.parts(k) {
		k--
	}
	switch {
	case l.from == nil:
		return k, k
	case k < len(l.text):
		return k, min(limit, int(l.from[k]))
	}
	return k, limit
}

// parts reports whether a word ends before l.text[k], and nothing in l stands for
// what is on both sides.
func (l *layer) parts(k int) bool {
	if l.from != nil && k < len(l.text) && l.from[k] < l.to[k-1] {
		return false
	}
	r, n := utf8.DecodeLastRune(l.text[:k])
	switch {
	case n == 1 && r < utf8.RuneSelf:
		return !isAlnum(byte(r)) && r != '\'' && !isLeetSign[r]
	case r == utf8.RuneError:
		return false
	}
	return alone(r) || !unicode.IsLetter(r) && !unicode.IsDigit(r)
}

// first returns the first k bytes of l.
func (l *layer) first(k int) *layer {
	if l.from == nil {
		return &layer{text: l.text[:k]}
	}
	return &layer{l.text[:k], l.from[:k], l.to[:k]}
}

// span returns the bytes of the original that text[i:j], which is not empty,
// was made from.
func (l *layer) span(i, j int) (int, int) {
	if l.from == nil {
		return i, j
	}
	return int(l.from[i]), int(l.to[j-1])
}

// add appends text, which stands for under.text[i:j].
func (l *layer) add(text []byte, under *layer, i, j int) {
	from, to := under.span(i, j)
	l.text = append(l.text, text...)
	for range text {
		l.from, l.to = append(l.from, int32(from)), append(l.to, int32(to))
	}
}

// plain returns l as a view shows it.
func plain(l *layer) *layer {
	if !isDirty(l.text) {
		return l
	}
	v := &view{keepTags: true}
	n := len(l.text)
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = make([]byte, 0, n), make([]int32, 0, n), make([]int32, 0, n)
	v.reset(l.text, 0)
	if l.from != nil {
		for i := range v.from {
			v.from[i], v.to[i] = l.from[v.from[i]], l.to[v.to[i]-1]
		}
	}
	return &layer{v.text, v.from, v.to}
}

// untagged returns l without the tags of HTML that only change how text looks, or nil
// if it has none.
func untagged(l *layer) (*layer, reading) {
	r := newReader(l)
	for i := 0; i < len(r.text); {
		next := bytes.IndexByte(r.text[i:], '<')
		if next < 0 {
			break
		}
		i += next
		n := inlineTag(r.text[i:])
		if n > 0 {
			r.replace(nil, i, n)
		}
		i += max(n, 1)
	}
	if len(r.codes) == 0 {
		return nil, r.reading
	}
	return r.rewrite(r.codes, 0, len(r.text)), r.reading
}

// A kind of layer says what it is of a text.
type kind int

const (
	asShown   kind = iota // the text, as a view shows it
	asLetters             // the same with letters for the digits and signs that look like them
	asDecoded             // something else: tags are left out, or codes are undone
)

// eachLayer calls f with the readings of text, the plain one first, until f
// returns false. Text is not longer than an int32 holds.
func eachLayer(text []byte, f func(*layer) bool) {
	readLayers(text, 0, func(_ kind, l *layer) bool { return f(l) })
}

// readLayers does the same for a text before which there were so many digits and signs
// for letters, and says how far it was read.
func readLayers(text []byte, signs int, f func(kind, *layer) bool) reading {
	r := layerReader{reading{open: openEscape(text)}, signs, f}
	layers := []*layer{{text: text}}
	for depth := 0; depth <= layerDepth; depth++ {
		var next []*layer
		for _, l := range layers {
			below, ok := r.read(l, depth)
			if !ok {
				return r.reading
			}
			next = append(next, below...)
		}
		layers = next
	}
	return r.reading
}

type layerReader struct {
	reading
	signs int // for letters, before the text
	f     func(kind, *layer) bool
}

// read gives f what l shows, and returns what is below it, unless f has enough.
func (r *layerReader) read(l *layer, depth int) (below []*layer, ok bool) {
	r.steps += len(l.text)
	of := func(k kind) kind {
		if depth > 0 {
			return asDecoded
		}
		return k
	}
	under, shown := l, plain(l)
	if !r.f(of(asShown), shown) {
		return nil, false
	}
	if bare, read := untagged(shown); bare != nil {
		r.add(read, shown)
		if !r.f(asDecoded, bare) {
			return nil, false
		}
		shown = bare
	}
	if letters, n := unleet(shown); letters != nil && n+r.signs >= fewestSigns && !r.f(of(asLetters), letters) {
		return nil, false
	}
	below, read := undo(shown)
	r.add(read, shown)
	codes, read := unblock(under) // signs may be digits there that are escapes in what is shown
	r.add(read, under)
	if codes == nil && under != shown {
		codes, read = unblock(shown)
		r.add(read, shown)
	}
	for _, l := range codes {
		if !r.f(asDecoded, l) {
			return nil, false
		}
	}
	if below == nil {
		below = codes
	}
	return below, true
}

// openEscape returns where an escape or the like may begin that more text could make
// or prolong, or len(text).
func openEscape(text []byte) int {
	const longest = 64
	for i := max(0, len(text)-longest); i < len(text); i++ {
		if dirtyByte[text[i]] {
			return i
		}
	}
	return len(text)
}

// undo returns the parts of l that have an encoding, with one level of it undone.
func undo(l *layer) ([]*layer, reading) {
	r := newReader(l)
	if escapes := bytes.Count(l.text, []byte("=20")); escapes > 0 {
		if r.open = bytes.Index(l.text, []byte("=20")); escapes >= 3 {
			r.unquote() // what it hides is read at the next level
			return r.decoded(), r.reading
		}
	}
	for i := 0; i < len(r.text); {
		if alphabet[r.text[i]]&inBase64 == 0 {
			i++
			continue
		}
		decoded, n := r.try(i, numbers)
		if decoded == nil {
			decoded, n = r.blob(i)
		}
		if decoded != nil {
			r.replace(decoded, i, n)
		}
		i += n
	}
	return r.decoded(), r.reading
}

// unquote undoes quoted-printable.
func (r *reader) unquote() {
	for i := 0; i < len(r.text); {
		decoded, n := unquoted(r.text[i:])
		if decoded != nil {
			r.replace(decoded, i, n)
		}
		i += n
	}
}

// unquoted decodes an escape of quoted-printable text, or a soft line break.
func unquoted(text []byte) ([]byte, int) {
	if text[0] != '=' {
		return nil, 1
	}
	if len(text) > 2 && hexDigit(text[1]) >= 0 && hexDigit(text[2]) >= 0 {
		return []byte{byte(hexDigit(text[1])<<4 | hexDigit(text[2]))}, 3
	}
	if n := breakLine(text[1:]); n > 0 {
		return []byte{}, 1 + n
	}
	return nil, 1
}

// fewestSigns is how many runs of digits and signs for letters a text has if they
// are meant to be read so.
const fewestSigns = 3

// unleet returns l with letters in place of the runs of digits and signs that look like
// them and touch a letter, and how many there are; nil if there are none. A one is read
// as an i, and so is what ends a sentence, if a letter follows.
func unleet(l *layer) (*layer, int) {
	const letters = "oieastbgasitl" // of leetSigns
	text, out, found := l.text, []byte(nil), 0
	for i := 0; i < len(text); i++ {
		if !isLeetSign[text[i]] {
			continue
		}
		end := i
		for end < len(text) && isLeetSign[text[end]] {
			end++
		}
		before, behind := i > 0 && isLetter(text[i-1]), end < len(text) && isLetter(text[end])
		if !before && !behind || !behind && strings.IndexByte("!+|", text[i]) >= 0 {
			i = end
			continue
		}
		if out == nil {
			out = bytes.Clone(text)
		}
		for found++; i < end; i++ {
			out[i] = letters[strings.IndexByte(leetSigns, text[i])]
		}
	}
	if found == 0 {
		return nil, 0
	}
	return &layer{out, l.from, l.to}, found
}

const leetSigns = "01345789@$!+|"

var isLeetSign = byteSet(leetSigns)

// keep appends under.text[i:j] as it is.
func (l *layer) keep(under *layer, i, j int) {
	l.text = append(l.text, under.text[i:j]...)
	if under.from != nil {
		l.from, l.to = append(l.from, under.from[i:j]...), append(l.to, under.to[i:j]...)
		return
	}
	for ; i < j; i++ {
		l.from, l.to = append(l.from, int32(i)), append(l.to, int32(i+1))
	}
}
