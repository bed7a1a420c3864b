package pgproxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// moveTime bounds the question whether a session keeps anything.
const moveTime = 5 * time.Second

// keeps asks whether the session keeps nothing that would be lost, and then for its
// prepared statements, which are prepared again. What cannot be asked for is in the
// documentation of [Config.Move].
const keeps = `SELECT current_user = session_user
 AND pg_catalog.pg_my_temp_schema() = 0
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_cursors)
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'advisory')
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings WHERE source = 'session');
SELECT name, statement, pg_catalog.array_to_string(parameter_types::pg_catalog.oid[], ' ') FROM pg_catalog.pg_prepared_statements`

const (
	maxStatements = 16 << 20 // bytes of prepared statements that a session moves with
	maxAnswer     = 1 << 20  // bytes of a message, when they are prepared again
)

// begin has the session moved if its time has come: what the client sends is held
// back from now on. The caller holds mu, and sees to it that down gets to move.
func (s *session) begin() bool {
	// The server does not tell of a statement without a name. What it was prepared
	// for comes next.
	if s.draining != rotated || !s.p.cfg.Move || s.over || s.eof || s.moving != nil || !s.t.idle() || s.t.parsed {
		return false
	}
	s.moving = make(chan struct{})
	return true
}

// stay returns when the session is not being moved. The caller holds mu, and has
// it again then.
func (s *session) stay() {
	for s.moving != nil {
		wait := s.moving
		s.mu.Unlock()
		<-wait
		s.mu.Lock()
	}
}

// woken reports whether a read has failed because the session is to be moved.
// The caller holds mu.
func (s *session) woken(err error) bool {
	return s.moving != nil && errors.Is(err, os.ErrDeadlineExceeded)
}

// move takes a session that is being moved to the current lease, and reports
// whether it goes on. If it keeps anything, or there is no other connection to be
// had, it ends as without moving. It is called by down, which alone reads from the
// server and writes to the client.
func (s *session) move() bool {
	s.mu.Lock()
	switch {
	case s.moving == nil:
		s.mu.Unlock()
		return true
	case s.over:
	case !s.t.idle(): // the server has begun to say something by itself
		defer s.mu.Unlock()
		_ = s.server.SetReadDeadline(time.Time{})
		s.stop()
		return !s.settle()
	default:
		_ = s.server.SetDeadline(time.Now().Add(moveTime))
	}
	try := !s.over
	s.mu.Unlock()
	moved := false
	if try {
		if statements, ok := s.bare(); ok {
			moved = s.replace(statements)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	if !moved && !s.over {
		s.over, s.last = true, s.draining
		s.p.count(&s.p.counts.Drained)
	}
	return !s.settle()
}

// stop ends the move. The caller holds mu.
func (s *session) stop() {
	close(s.moving)
	s.moving = nil
}

// bare asks the server whether the session keeps nothing, and returns its prepared
// statements, which end with a Sync. What the server says besides is lost: either
// the session moves, or it ends.
func (s *session) bare() (statements []byte, ok bool) {
	front := pgproto3.NewFrontend(s.server, s.server)
	front.Send(&pgproto3.Query{String: keeps})
	if front.Flush() != nil {
		return nil, false
	}
	for nothing, results := false, 0; ; {
		message, err := front.Receive()
		if err != nil {
			return nil, false
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			if results == 0 {
				nothing = len(m.Values) == 1 && string(m.Values[0]) == "t"
				continue
			}
			if len(m.Values) != 3 {
				return nil, false
			}
			again := pgproto3.Parse{Name: string(m.Values[0]), Query: string(m.Values[1])}
			for text := range strings.FieldsSeq(string(m.Values[2])) {
				oid, err := strconv.ParseUint(text, 10, 32)
				if err != nil {
					return nil, false
				}
				again.ParameterOIDs = append(again.ParameterOIDs, uint32(oid))
			}
			if statements = encode(statements, &again); len(statements) > maxStatements {
				return nil, false
			}
		case *pgproto3.CommandComplete:
			results++
		case *pgproto3.ErrorResponse, *pgproto3.NotificationResponse:
			return nil, false
		case *pgproto3.ReadyForQuery:
			if statements != nil {
				statements = encode(statements, &pgproto3.Sync{})
			}
			return statements, nothing && m.TxStatus == 'I'
		}
	}
}

// prepare sends what bare has returned, and reports whether all of it was taken. It
// reads no further than to the end of the answer.
func prepare(server net.Conn, statements []byte) bool {
	if statements == nil {
		return true
	}
	_ = server.SetDeadline(time.Now().Add(moveTime))
	if _, err := server.Write(statements); err != nil {
		return false
	}
	for {
		var head [5]byte
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return false
		}
		size := int64(binary.BigEndian.Uint32(head[1:])) - 4
		if size < 0 || size > maxAnswer || head[0] == 'E' {
			return false
		}
		if _, err := io.CopyN(io.Discard, server, size); err != nil {
			return false
		}
		if head[0] == 'Z' {
			return server.SetDeadline(time.Time{}) == nil
		}
	}
}

// replace logs in with the current lease, and puts that connection in the place
// of the old one.
func (s *session) replace(statements []byte) bool {
	g, server, err := s.p.connect(s.settings)
	if err != nil {
		return false // a client that connects again is told why
	}
	if !prepare(server, statements) {
		_ = server.Close()
		s.p.leave(g)
		return false
	}
	// The name of the user has changed, if nothing else.
	var b []byte
	for name, value := range server.Parameters {
		b = encode(b, &pgproto3.ParameterStatus{Name: name, Value: value})
	}
	server.Parameters = nil
	_ = s.client.SetWriteDeadline(time.Now().Add(s.p.cfg.StartTimeout))
	_, err = s.client.Write(b)

	s.mu.Lock()
	if err != nil {
		s.over, s.broken = true, true
	}
	if s.over { // since a moment ago
		s.mu.Unlock()
		_, _ = server.Write(terminate)
		_ = server.Close()
		s.p.leave(g)
		return false
	}
	_ = s.client.SetWriteDeadline(time.Time{})
	old, left := s.server, s.g
	s.server, s.g = server, g
	s.t = tracker{status: 'I', client: s.t.client}
	s.p.mu.Lock()
	delete(left.sessions, s)
	g.sessions[s] = struct{}{}
	s.draining = g.retired // nil, unless since a moment ago
	if s.p.closing {
		s.draining = shutdown
	}
	s.p.counts.Moved++
	s.p.mu.Unlock()
	s.mu.Unlock()

	_ = old.SetDeadline(time.Now().Add(goodbye))
	_, _ = old.Write(terminate)
	_ = old.Close()
	s.p.leave(left)
	return true
}
