package secmem_test

import (
	"encoding/json"
	"testing"

	"github.com/tamshai/phoenix/internal/secmem"
)

func FuzzAppendJSON(f *testing.F) {
	for _, text := range []string{"", "plain", "\"\\\b\f\n\r\t/", "<&>\u2028\u2029", "\x00\x1f\x7f\xff\xc3", "é🙂\ufffd"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := json.Marshal(text)
		if got := secmem.AppendJSON([]byte("x"), []byte(text)); err != nil || string(got) != "x"+string(want) {
			t.Errorf("%q: %s, not %s (%v)", text, got[1:], want, err)
		}
	})
}
