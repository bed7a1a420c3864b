package guard

import "encoding/binary"

// Eight bytes of text are looked at at once, as a number whose lowest byte is the first.
// What is found out about each byte is in its highest bit.
const (
	oneEach  = 0x0101010101010101
	highBits = 0x80 * oneEach
)

// eightOf returns the eight bytes from b[i] on, with zeros behind the end of b.
func eightOf(b []byte, i int) uint64 {
	if i+8 <= len(b) {
		return binary.LittleEndian.Uint64(b[i:])
	}
	if i < len(b) && len(b) >= 8 {
		return binary.LittleEndian.Uint64(b[len(b)-8:]) >> (8 * (8 - uint(len(b)-i)))
	}
	var w [8]byte
	copy(w[:], b[min(i, len(b)):])
	return binary.LittleEndian.Uint64(w[:])
}

// alnumsIn marks the letters and the digits of ASCII in w.
func alnumsIn(w uint64) (letter, digit uint64) {
	low := w &^ highBits
	folded := low | 0x20*oneEach
	letter = (folded + (0x80-'a')*oneEach) &^ (folded + (0x7F-'z')*oneEach) &^ w & highBits
	digit = (low + (0x80-'0')*oneEach) &^ (low + (0x7F-'9')*oneEach) &^ w & highBits
	return letter, digit
}

// bitsOf gathers the highest bit of each byte of w, which has no others set.
func bitsOf(w uint64) uint64 { return w >> 7 * 0x0102040810204080 >> 56 }

// lowerOf is w with small letters for capitals.
func lowerOf(w uint64) uint64 {
	letter, _ := alnumsIn(w)
	return w | letter>>2
}
