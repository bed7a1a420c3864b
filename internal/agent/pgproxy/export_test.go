package pgproxy

import (
	"fmt"
	"io"

	"github.com/tamshai/phoenix/dbconn"
)

// ReadStartup reads a packet, for a proxy of the database "served".
func ReadStartup(r io.Reader) (kind int, fields, pass map[string]string, err error) {
	s, err := readStartup(r)
	if err != nil {
		return 0, nil, nil, err
	}
	if s.kind == startSession {
		pass, _, _ = s.settings(&Config{Upstream: dbconn.Config{Database: "served"}})
	}
	return int(s.kind), s.fields, pass, nil
}

// A Tracker follows a session.
type Tracker struct{ t tracker }

func (t *Tracker) Sent(p []byte) error     { return t.t.sent(p) }
func (t *Tracker) Received(p []byte) error { return t.t.received(p) }
func (t *Tracker) Idle() bool              { return t.t.idle() }
func (t *Tracker) State() string {
	return fmt.Sprintf("%c owed %d open %t simple %t copy %t early %t", t.t.status, t.t.owed, t.t.open, t.t.simple, t.t.copyIn, t.t.early)
}
