package pgproxy

import (
	"encoding/binary"
	"errors"
)

// errFraming is a peer that does not speak PostgreSQL's protocol.
var errFraming = errors.New("it does not speak PostgreSQL's protocol")

// A frames follows the messages in one direction of a stream by their types and
// lengths. It keeps no bytes but those of a header that came in two parts.
type frames struct {
	head [5]byte
	n    int    // bytes of head that are there
	left uint32 // bytes of the body that are still to come
	typ  byte   // of the message under way
}

// between reports whether the stream is between two messages.
func (f *frames) between() bool { return f.n == 0 && f.left == 0 }

// next consumes bytes of p up to the end of the next header, and reports whether
// it has got there: typ and left are then those of a new message.
func (f *frames) next(p []byte) (rest []byte, header bool, err error) {
	if f.left > 0 {
		k := min(uint64(f.left), uint64(len(p)))
		f.left -= uint32(k) //nolint:gosec // G115: it is at most left
		p = p[k:]
	}
	if len(p) == 0 {
		return nil, false, nil
	}
	var size uint32
	if f.n == 0 && len(p) >= len(f.head) {
		f.typ, size, p = p[0], binary.BigEndian.Uint32(p[1:5]), p[5:]
	} else {
		k := copy(f.head[f.n:], p)
		f.n += k
		p = p[k:]
		if f.n < len(f.head) {
			return nil, false, nil
		}
		f.n = 0
		f.typ, size = f.head[0], binary.BigEndian.Uint32(f.head[1:])
	}
	if size < 4 || size > 1<<30 {
		return nil, false, errFraming
	}
	f.left = size - 4
	return p, true, nil
}

// Which types of messages there are in each direction after the login.
var fromClient, fromServer = set("BCDEFHPQSXcdfp"), set("123ACDEGHIKNRSTVWZcdnstv")

func set(types string) (s [256]bool) {
	for _, b := range []byte(types) {
		s[b] = true
	}
	return s
}

// A tracker knows whether a session is between two transactions with nothing
// under way. Where it cannot know, it takes something to be under way.
type tracker struct {
	client, server frames

	status byte // of the last ReadyForQuery: 'I', 'T' or 'E'
	owed   int  // ReadyForQuery messages that the server has yet to send
	open   bool // extended messages were sent, and no Sync after them
	simple bool // what was sent last to be executed was a simple query
	copyIn bool // the server waits for the client's rows
	early  bool // rows were sent before the server asked for them
	failed bool // the server's last message was an error
	bye    bool // the client has said that it goes
	parsed bool // a statement was prepared last, and not bound: it may have no name
}

// working reports whether the server has something to do or to answer.
func (t *tracker) working() bool {
	return t.owed > 0 || t.open || t.copyIn || !t.client.between()
}

// idle reports whether the session can be ended with nothing lost.
func (t *tracker) idle() bool {
	return t.status == 'I' && !t.working() && t.server.between()
}

// sent follows what the client sends.
func (t *tracker) sent(p []byte) error {
	f := &t.client
	for len(p) > 0 {
		rest, header, err := f.next(p)
		if err != nil {
			return err
		}
		p = rest
		if !header {
			continue
		}
		switch f.typ {
		case 'Q', 'F':
			t.owed++
			t.open, t.simple, t.parsed = false, true, false
		case 'S':
			// While it waits for rows the server ignores it.
			if !t.copyIn {
				t.owed++
			}
			t.open = false
		case 'E':
			t.open, t.simple = true, false
		case 'P', 'B', 'C', 'D', 'H':
			t.open = true
			if f.typ == 'P' || f.typ == 'B' {
				t.parsed = f.typ == 'P'
			}
		case 'c', 'f':
			switch {
			case t.copyIn:
				t.copyIn = false
				t.open = !t.simple
			case t.owed > 0 || t.open:
				t.early = true
			}
		case 'X':
			t.bye = true
		default:
			if !fromClient[f.typ] {
				return errFraming
			}
		}
	}
	return nil
}

// received follows what the server sends.
func (t *tracker) received(p []byte) error {
	f := &t.server
	for len(p) > 0 {
		if f.typ == 'Z' && f.left == 1 {
			t.ready(p[0])
		}
		rest, header, err := f.next(p)
		if err != nil {
			return err
		}
		p = rest
		if !header {
			continue
		}
		t.failed = f.typ == 'E'
		switch f.typ {
		case 'G':
			// Of what was sent before, a Sync behind the COPY is ignored.
			if !t.early {
				t.owed = 0
				if t.simple {
					t.owed = 1
				}
				t.copyIn = true
			}
		case 'Z':
			if f.left != 1 {
				return errFraming
			}
		default:
			if !fromServer[f.typ] {
				return errFraming
			}
		}
	}
	return nil
}

func (t *tracker) ready(status byte) {
	t.status = status
	t.owed = max(t.owed-1, 0)
	t.copyIn, t.early = false, t.early && t.owed > 0
}
