package mongoconn_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/internal/testpki"
)

// A middle stands before a server, with a certificate for its name, and answers
// some commands itself.
type middle struct {
	addr   string
	config *tls.Config

	mu     sync.Mutex
	answer func(command string) bson.D // nil: what the server answers
	silent map[string]bool             // commands that get no answer
	conns  []net.Conn
	whole  int // how many more connections get a handshake, before the rest hang; negative: all
}

func newMiddle(t *testing.T, m *realmongo.Server) *middle {
	t.Helper()
	certificate := func() tls.Certificate {
		pair := m.CA().Issue(testpki.Spec{CN: "middle", IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
		return tls.Certificate{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}
	}
	mid := &middle{config: &tls.Config{Certificates: []tls.Certificate{certificate()}, ClientAuth: tls.RequireAnyClientCert}, silent: map[string]bool{}, whole: -1} //nolint:gosec // tests set the version
	ln, err := net.Listen("tcp", "127.0.0.1:0")                                                                                                                     //nolint:noctx // it ends with the test
	if err != nil {
		t.Fatal(err)
	}
	mid.addr = ln.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		mid.drop()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			mid.mu.Lock()
			mid.conns = append(mid.conns, raw)
			hangs := mid.whole == 0
			if mid.whole > 0 {
				mid.whole--
			}
			mid.mu.Unlock()
			if hangs {
				continue // until drop
			}
			wg.Go(func() {
				defer raw.Close()
				up, err := tls.Dial("tcp", m.Addr(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate()}}) //nolint:gosec // it is our own
				if err != nil {
					return
				}
				defer up.Close()
				mid.serve(tls.Server(raw, mid.config), up)
			})
		}
	})
	return mid
}

// drop breaks all connections.
func (mid *middle) drop() {
	mid.mu.Lock()
	defer mid.mu.Unlock()
	for _, c := range mid.conns {
		c.Close()
	}
}

// hangAfter lets n more connections through, or all.
func (mid *middle) hangAfter(n int) {
	mid.mu.Lock()
	defer mid.mu.Unlock()
	mid.whole = n
}

func (mid *middle) on(answer func(command string) bson.D, silent ...string) {
	mid.mu.Lock()
	defer mid.mu.Unlock()
	mid.answer = answer
	clear(mid.silent)
	for _, command := range silent {
		mid.silent[command] = true
	}
}

func (mid *middle) serve(down, up net.Conn) {
	for {
		request, err := message(down)
		if err != nil {
			return
		}
		command := commandOf(request)
		mid.mu.Lock()
		answer, silent := mid.answer, mid.silent[command]
		mid.mu.Unlock()
		if silent {
			continue
		}
		if answer != nil {
			if doc := answer(command); doc != nil {
				if _, err := down.Write(reply(request, doc)); err != nil {
					return
				}
				continue
			}
		}
		if _, err := up.Write(request); err != nil {
			return
		}
		response, err := message(up)
		if err != nil {
			return
		}
		if _, err := down.Write(response); err != nil {
			return
		}
	}
}

func message(r io.Reader) ([]byte, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	msg := append(head, make([]byte, binary.LittleEndian.Uint32(head)-16)...)
	_, err := io.ReadFull(r, msg[16:])
	return msg, err
}

const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013
)

// commandOf is the first key of the request's document.
func commandOf(msg []byte) string {
	body := msg[16:]
	switch binary.LittleEndian.Uint32(msg[12:]) {
	case opMsg:
		body = body[5:] // flags, kind
	case opQuery:
		body = body[4:]
		body = body[slices.Index(body, 0)+1+8:]
	}
	element, err := bson.Raw(body).IndexErr(0)
	if err != nil {
		return ""
	}
	return element.Key()
}

// reply answers a request with a document, in the way that it was asked.
func reply(request []byte, doc bson.D) []byte {
	body, err := bson.Marshal(doc)
	if err != nil {
		panic(err)
	}
	op, prefix := uint32(opMsg), make([]byte, 5)
	if binary.LittleEndian.Uint32(request[12:]) == opQuery {
		op, prefix = opReply, make([]byte, 20)
		prefix[16] = 1 // document
	}
	msg := make([]byte, 16, 16+len(prefix)+len(body))
	binary.LittleEndian.PutUint32(msg, uint32(cap(msg)))
	copy(msg[8:12], request[4:8])
	binary.LittleEndian.PutUint32(msg[12:], op)
	return append(append(msg, prefix...), body...)
}

// failure is what a server answers when a command fails.
func failure(code int32, name, text string) bson.D {
	return bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: code}, {Key: "codeName", Value: name}, {Key: "errmsg", Value: text}}
}
