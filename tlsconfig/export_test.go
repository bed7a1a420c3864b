package tlsconfig

import (
	"bytes"
	"net"
)

// Judge returns what a probe makes of a server's bytes: whether the server
// refused, and what is reported of it.
func (e Endpoint) Judge(said []byte) (refused bool, text string) {
	w := wiresOf(e, "name")[0]
	a := w.exchange(script{r: bytes.NewReader(said)}, w.hello, w.read)
	return a.outcome != served && a.outcome != busy, a.text
}

// JudgeSettings is Judge for what comes after a connection preface in the clear.
func JudgeSettings(said []byte) (refused bool, text string) {
	a := new(wire).exchange(script{r: bytes.NewReader(said)}, http2Hello(), readSettings)
	return a.outcome != served, a.text
}

// JudgeHTTP2 is Judge for what comes after a connection preface.
func JudgeHTTP2(said []byte) (refused bool, text string) {
	w := wiresOf(Endpoint{Protocol: ProtocolHTTPS}, "name")[0]
	a := w.ask(script{r: bytes.NewReader(said)}, "h2")
	return a.outcome != served, a.text
}

// A script is a connection whose other side says one thing.
type script struct {
	net.Conn
	r *bytes.Reader
}

func (s script) Read(b []byte) (int, error)  { return s.r.Read(b) }
func (s script) Write(b []byte) (int, error) { return len(b), nil }
