package secmem

import (
	"bytes"
	"unicode/utf8"
)

// AppendJSON appends text to dst as the JSON string that encoding/json makes of
// it. That package itself leaves a copy in its pool of buffers.
func AppendJSON(dst, text []byte) []byte {
	const digits, plain, short = "0123456789abcdef", "\"\\\b\f\n\r\t", `"\bfnrt`
	dst = append(dst, '"')
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		i := -1
		if r < utf8.RuneSelf {
			i = bytes.IndexByte([]byte(plain), byte(r))
		}
		switch {
		case i >= 0:
			dst = append(dst, '\\', short[i])
		case r < ' ', r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029', r == utf8.RuneError && size == 1:
			dst = append(dst, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
		default:
			dst = append(dst, text[:size]...)
		}
		text = text[size:]
	}
	return append(dst, '"')
}
