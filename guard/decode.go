package guard

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"io"
	"sync"
	"unicode/utf8"
)

// minBlob and maxBlob bound what is tried as base64, base32 or hex, in bytes. A
// longer run is decoded in pieces of maxBlob, from its start.
const (
	minBlob = 12
	maxBlob = 4096
)

// isBlobByte marks the bytes of base64 in both alphabets, padding apart.
var isBlobByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || c == '+' || c == '/' || c == '-' || c == '_'
	}
	return t
}()

// blobEnd returns the end of the run of base64 at b[i], padding included.
func blobEnd(b []byte, i int) int {
	j := i
	for j < len(b) && j-i < maxBlob && isBlobByte[b[j]] {
		j++
	}
	for k := 0; k < 6 && j < len(b) && j-i < maxBlob && b[j] == '='; k++ {
		j++
	}
	return j
}

// decodeBlob appends to dst what b is the base64, base32 or hex of, and returns
// it; or nil if that is not text.
func decodeBlob(dst, b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '=' {
		b = b[:len(b)-1]
	}
	if len(b) < minBlob || len(b) > maxBlob {
		return nil
	}
	digits := b
	if b[0] == '0' && b[1]|0x20 == 'x' {
		digits = b[2:]
	}
	if plain := decodeBits(dst, b); plain != nil {
		return plain
	}
	if plain := decodeHex(dst, digits); plain != nil {
		return plain
	}
	if plain := decodeBase64(dst, b); plain != nil {
		return plain
	}
	return decodeBase32(dst, b)
}

func decodeHex(dst, b []byte) []byte {
	if len(b)%2 != 0 {
		return nil
	}
	// The first digit of each pair of a printable character is 2 to 7.
	for i := 0; i < len(b); i += 2 {
		hi, lo := hexDigit(b[i]), hexDigit(b[i+1])
		if hi < 0 || lo < 0 {
			return nil
		}
		dst = append(dst, byte(hi<<4|lo))
	}
	return keepText(narrow(dst))
}

// decodeBits reads eight binary digits for each byte.
func decodeBits(dst, b []byte) []byte {
	if len(b)%8 != 0 || len(b) < 7*8 {
		return nil
	}
	for i, c := range b {
		if c&^1 != '0' {
			return nil
		}
		if i%8 == 0 {
			dst = append(dst, 0)
		}
		dst[len(dst)-1] = dst[len(dst)-1]<<1 | c&1
	}
	return keepText(dst)
}

// narrow returns what b is in UTF-16 if it is all ASCII, of either order, or b.
func narrow(b []byte) []byte {
	if len(b) < 4 || len(b)%2 != 0 || (b[0] == 0) == (b[1] == 0) {
		return b
	}
	zero := 1
	if b[0] == 0 {
		zero = 0
	}
	for i := zero; i < len(b); i += 2 {
		if b[i] != 0 {
			return b
		}
	}
	for i := range len(b) / 2 {
		b[i] = b[2*i+1-zero]
	}
	return b[:len(b)/2]
}

// isPacked reports whether b begins as gzip and zlib do.
func isPacked(b []byte) bool {
	return len(b) > 2 && (b[0] == 0x1F && b[1] == 0x8B || b[0] == 0x78 && (b[1] == 0x9C || b[1] == 0xDA || b[1] == 1 || b[1] == 0x5E))
}

// An inflater is kept, because it is large.
type inflater struct {
	gzip gzip.Reader
	zlib io.ReadCloser // nil until it is used
	out  [maxBlob]byte
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// inflate reads what was compressed, as gzip or zlib, and appends it to dst, as
// much as fits.
func inflate(dst, b []byte) []byte {
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	r, err := f.open(bytes.NewReader(b), b[0] == 0x1F)
	if err != nil {
		return nil
	}
	n, err := io.ReadFull(r, f.out[:])
	if n == 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return keepText(append(dst, f.out[:n]...))
}

func (f *inflater) open(r io.Reader, isGzip bool) (io.Reader, error) {
	if isGzip {
		return &f.gzip, f.gzip.Reset(r)
	}
	if f.zlib != nil {
		return f.zlib, f.zlib.(zlib.Resetter).Reset(r, nil)
	}
	z, err := zlib.NewReader(r)
	if err == nil {
		f.zlib = z
	}
	return z, err
}

func decodeBase64(dst, b []byte) []byte {
	if len(b)%4 == 1 {
		b = b[:len(b)-1] // cut off
	}
	enc := base64.RawStdEncoding
	for _, c := range b {
		if c == '-' || c == '_' {
			enc = base64.RawURLEncoding
			break
		}
	}
	// Look at the first characters before decoding all.
	head, ok := base64Head(b)
	if !ok {
		return nil
	}
	wide := head[0] != 0 && head[1] == 0 && head[3] == 0 && head[5] == 0 || head[0] == 0 && head[1] != 0 && head[2] == 0 && head[4] == 0
	packed := isPacked(head[:])
	if !wide && !packed && keepText(head[:]) == nil {
		return nil
	}
	if packed {
		raw := make([]byte, enc.DecodedLen(len(b)))
		n, _ := enc.Decode(raw, b)
		return inflate(dst[:0], raw[:n])
	}
	dst = dst[:enc.DecodedLen(len(b))]
	n, err := enc.Decode(dst, b)
	if err != nil && n < len(head) {
		return nil // of both alphabets
	}
	return keepText(narrow(dst[:n]))
}

// base64Head decodes the first eight characters of b, of either alphabet.
func base64Head(b []byte) (head [6]byte, ok bool) {
	var v uint64
	for _, c := range b[:8] {
		d := base64Value[c]
		if d < 0 {
			return head, false
		}
		v = v<<6 | uint64(d)
	}
	for i := range head {
		head[i] = byte(v >> (40 - 8*i))
	}
	return head, true
}

// base64Value has the values of the characters of both alphabets, and -1.
var base64Value = func() (t [256]int8) {
	for c := range t {
		t[c] = -1
	}
	for _, more := range [...]string{"+/", "-_"} {
		for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + more) {
			t[c] = int8(i)
		}
	}
	return t
}()

func decodeBase32(dst, b []byte) []byte {
	capitals, small := false, false
	for _, c := range b {
		if !isLetter(c) && !(c >= '2' && c <= '7') {
			return nil
		}
		capitals, small = capitals || isUpper(c), small || isLower(c)
	}
	if small && (capitals || len(b) < 16) {
		return nil
	}
	if small {
		var buf [maxBlob]byte
		b = append(buf[:0], b...)
		for i, c := range b {
			b[i] = upper(c)
		}
	}
	enc := base32.StdEncoding.WithPadding(base32.NoPadding)
	dst = dst[:enc.DecodedLen(len(b))]
	n, err := enc.Decode(dst, b)
	if err != nil && n == 0 {
		return nil
	}
	return keepText(dst[:n])
}

// keepText returns b if it is text, else nil. A character cut off at the end
// does no harm.
func keepText(b []byte) []byte {
	odd := 0
	for i := 0; i < len(b); {
		c := b[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7F {
				return nil
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 && utf8.FullRune(b[i:]) {
			return nil
		}
		odd++
		i += size
	}
	if odd*4 > len(b) {
		return nil
	}
	return b
}
