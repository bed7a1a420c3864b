package guard

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"sort"
	"strings"
	"unicode"
	"unicode/utf16"
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

// shortestRun is how many characters of base64 are tried without padding, and of the
// other encodings in any case.
const shortestRun = 8

// blob decodes base64, base32 or hexadecimal. Line breaks may be in it, and a
// word before it; a stream may have cut off its beginning. It returns nil and
// the length of the run if it is none of these.
func (r *reader) blob(i int) ([]byte, int) {
	text := r.text[i:]
	first := runEnd(text, 0)
	end, run := first, text[:first]
	if i >= r.joins.end {
		r.joins.tries = codecTries
	}
	for line := 0; end-line >= 16 && r.joins.tries > 0; { // and the next lines
		next := breakLine(text[end:])
		if next == 0 || end+next == len(text) || alphabet[text[end+next]]&inBase64 == 0 {
			break
		}
		if end == first { // append copies run, and text stays as it is
			run = run[:end:end]
		}
		line = end + next
		end = runEnd(text, line)
		run = append(run, text[line:end]...)
	}
	pad := end
	for pad < len(text) && text[pad] == '=' {
		pad++
	}
	r.looked(r.text, i, pad+breakLine(text[pad:]))
	if padded := pad > end && pad%4 == 0; len(run) < shortestRun && (!padded || len(run) < 2) {
		return nil, pad
	}
	if out := decodeRun(run); out != nil {
		return out, pad
	}
	if end == first {
		return nil, pad
	}
	// Several lines, but not of one blob. That is tried from a few of them.
	r.joins.end = i + end
	r.joins.tries--
	r.steps += first
	return decodeRun(text[:first]), first
}

// runEnd returns the end of the run of base64 at text[i:], without padding.
func runEnd(text []byte, i int) int {
	for i < len(text) && alphabet[text[i]]&inBase64 != 0 {
		i++
	}
	return i
}

func decodeRun(run []byte) []byte {
	kind, bits := byte(0xff), len(run) >= 32
	for _, c := range run {
		kind &= alphabet[c]
		bits = bits && c&^1 == '0'
	}
	for phase := 0; bits && phase < 8; phase++ {
		if out := decodeWhole(run[phase:], binaryBytes); out != nil {
			return out
		}
	}
	for phase := 0; kind&inHex != 0 && len(run) >= shortestRun && phase < 2; phase++ {
		if out := decodeWhole(run[phase:], hexBytes); out != nil {
			return out
		}
	}
	if kind&inBase32 != 0 && len(run) >= 16 {
		if out := decodeWhole(run, base32Bytes); out != nil {
			return out
		}
	}
	if len(run) < 24 && !beginsText(run) {
		return nil // compressed text is longer
	}
	for phase := 0; phase < 4 && phase < len(run); phase++ {
		if phase > 0 && len(run)-phase < 24 {
			break
		}
		if out := decodeWhole(run[phase:], base64Bytes); out != nil {
			return out
		}
	}
	if len(run) < 32 {
		return nil
	}
	// It may have been written backwards.
	const head = 8
	for phase := range 4 {
		last := reversed(run[len(run)-phase-head : len(run)-phase])
		if !beginsText(last) {
			continue
		}
		if out := base64Bytes(reversed(run[:len(run)-phase])); readable(out) {
			return out
		}
	}
	return nil
}

// decodeWhole decodes a run, compressed or in UTF-16 or not, if that makes a text.
// Hardly any does, and its first digits tell.
func decodeWhole(run []byte, decode func([]byte) []byte) []byte {
	const head = 192 // digits, whole blocks in every encoding
	if len(run) > head {
		out := decode(run[:head])
		if wide := bytes.Count(out, []byte{0})*4 >= len(out); !wide && !isPacked(out) && garbled(out) {
			return nil
		}
	}
	if out := unpacked(decode(run)); readable(out) {
		return out
	}
	return nil
}

func binaryBytes(digits []byte) []byte {
	out := make([]byte, len(digits)/8)
	for i := range out {
		for _, c := range digits[8*i : 8*i+8] {
			out[i] = out[i]<<1 | c&1
		}
	}
	return out
}

func hexBytes(digits []byte) []byte {
	out := make([]byte, len(digits)/2)
	_, _ = hex.Decode(out, digits[:len(digits)&^1])
	return out
}

func base32Bytes(digits []byte) []byte {
	out := make([]byte, len(digits)/8*5)
	n, _ := base32.StdEncoding.Decode(out, digits[:len(digits)&^7])
	return out[:n]
}

// base64Bytes reads either alphabet.
func base64Bytes(digits []byte) []byte {
	if len(digits)%4 == 1 {
		digits = digits[:len(digits)-1]
	}
	out := bytes.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, digits)
	n, _ := base64.RawStdEncoding.Decode(out, out) // what is written was read before
	return out[:n]
}

// unpacked returns what b is, compressed or in UTF-16, or b.
func unpacked(b []byte) []byte {
	if isPacked(b) {
		return inflate(nil, b)
	}
	if zeros := bytes.Count(b, []byte{0}); zeros*3 < len(b) || len(b) < 2 {
		return b
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[0] == 0 {
		order = binary.BigEndian
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// beginsText reports whether run may be the base64 of something readable, by
// its first six bytes: it spares most words the rest.
func beginsText(run []byte) bool {
	var in [8]byte
	var out [6]byte
	for i, c := range run[:min(len(run), 8)&^3] {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		in[i] = c
	}
	n, err := base64.StdEncoding.Decode(out[:], in[:min(len(run), 8)&^3])
	return err == nil && readable(wholeRunes(out[:n]))
}

// wholeRunes returns b without a character that it cuts.
func wholeRunes(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if last := b[len(b)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return b[:len(b)-n]
			}
			break
		}
	}
	return b
}

// breakLine returns the length of a line break at the start of text, quoted
// or escaped ones included; 0 if there is none.
func breakLine(text []byte) int {
	n := 0
	for n < len(text) && n < 8 && (text[n] == '\r' || text[n] == '\n') {
		n++
	}
	if n == 0 && len(text) > 1 && text[0] == '\\' && text[1] == 'n' {
		n = 2
	}
	if n == 0 {
		return 0
	}
	for n < len(text) && n < 8 && (text[n] == ' ' || text[n] == '>' || text[n] == '\t') {
		n++
	}
	return n
}

// readable reports whether text may have been written to be read. If it is long, its
// ends may be cut, or have something with them that does not belong to it.
func readable(text []byte) bool {
	letters, others, ok := census(text)
	return ok && letters > 0 && others*10 <= letters+20
}

// garbled reports whether text, and any text that begins with it, is not readable.
func garbled(text []byte) bool {
	_, _, ok := census(text)
	return !ok
}

// census counts the letters of text and what is no letter, unless there is something in
// it that is in no text.
func census(text []byte) (letters, others int, ok bool) {
	const long = 18
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if len(text) < long || i > 2 && i < len(text)-3 {
				return letters, others, false
			}
			others++
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return letters, others, false
		case r < utf8.RuneSelf || unicode.IsLetter(r):
			letters++
		default:
			others++
		}
		i += n
	}
	return letters, others, true
}

// Which alphabets a byte is in.
const (
	inHex = 1 << iota
	inBase32
	inBase64
)

var alphabet = func() (t [256]byte) {
	for c := range t {
		switch c := byte(c); {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			t[c] |= inHex
		}
		switch c := byte(c); {
		case c >= 'A' && c <= 'Z', c >= '2' && c <= '7':
			t[c] |= inBase32
		}
		switch c := byte(c); {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+', c == '/', c == '-', c == '_':
			t[c] |= inBase64
		}
	}
	return t
}()
