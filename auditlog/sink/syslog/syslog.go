// Package syslog delivers audit events as messages of RFC 5424 over TLS, with
// octet counting (RFC 5425).
//
//	sink, err := syslog.New(syslog.Config{Addr: "logs.example.com:6514", TLS: tlsSource})
//	log.Attach(signer, sink)
//
// # What is proven
//
// Syslog has no acknowledgement: what was written to a connection that is then
// reset is lost, and the sender is not told how much of it. So each batch has a
// connection of its own, which is closed properly: the sink says that it has
// ended (close_notify and FIN) and waits until the collector closes its side
// too, as RFC 5425, section 4.4 wants, with every byte acknowledged by its
// host. A collector that ends earlier, resets the connection, or never closes
// it has proven nothing, and the batch is sent again, whole (at least once;
// each message has the event's id).
//
// What is proven is that the collector has taken the batch, not that it has
// stored it: what it had in its memory when it was killed is lost. The log
// therefore counts these events as "sent", never as delivered.
//
// With rsyslog use the driver gtls: in 8.2302 (Debian 12) the driver ossl has been
// seen to lose what it had taken, after handshakes that were cut off.
//
// # Length
//
// A message has the event twice, as structured data and as JSON. One that is
// longer than MaxMessage, which a collector would cut off, becomes a dead
// letter: set it to what the collector takes ($MaxMessageSize of rsyslog).
package syslog

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/post"
)

// Config is a collector. Only Addr is required.
type Config struct {
	Name string // of the sink; empty: "syslog"
	Addr string // host:port; RFC 5425's port is 6514

	// TLS is called for each connection: for a client certificate, or other
	// roots than the system's. The collector is always verified, by the host
	// of Addr unless ServerName says otherwise.
	TLS func() (*tls.Config, error)

	// Token is called for each batch; what it returns stands in the structured
	// data as [TOKEN@41058], SolarWinds' number. Nil: none.
	Token func() (string, error)

	Facility   int           // RFC 5424, table 1; 0: 13, log audit
	Host       string        // HOSTNAME; empty: this host's
	MaxMessage int           // bytes of a message; 0: 8192, which RFC 5425 says that collectors should take
	MaxBatch   int           // events in a connection; 0: 1,000
	Linger     time.Duration // how long to wait for more events; 0: one second; negative: not at all
	CloseWait  time.Duration // how long the collector may take to close its side; 0: 10 s
}

// A Sink is a collector that speaks syslog.
type Sink struct {
	cfg  Config
	text auditlog.Syslog
}

var _ auditlog.Sink = (*Sink)(nil)

// New returns the sink of cfg. It does not connect.
func New(cfg Config) (*Sink, error) {
	host, _, err := net.SplitHostPort(cfg.Addr)
	if err != nil || host == "" {
		return nil, fmt.Errorf("syslog: the collector's address is %q; it is like logs.example.com:6514", cfg.Addr)
	}
	if cfg.Facility < 0 || cfg.Facility > 23 {
		return nil, fmt.Errorf("syslog: the facility is %d; it must be one of 1 to 23", cfg.Facility)
	}
	cfg.Name = cmp.Or(cfg.Name, "syslog")
	cfg.MaxMessage = cmp.Or(cfg.MaxMessage, 8192)
	cfg.CloseWait = cmp.Or(cfg.CloseWait, 10*time.Second)
	cfg.Linger = max(cmp.Or(cfg.Linger, time.Second), 0)
	if cfg.Host == "" {
		if cfg.Host, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("syslog: this host's name: %w; set Host", err)
		}
	}
	return &Sink{cfg: cfg, text: auditlog.Syslog{Facility: cfg.Facility, Host: cfg.Host, ProcID: strconv.Itoa(os.Getpid())}}, nil
}

// Papertrail returns a sink for Papertrail. addr is the log destination that
// its page shows, or the collector of SolarWinds Observability, which wants a
// Token. Messages may have 100,000 bytes there.
//
// See https://help.papertrailapp.com/kb/configuration/troubleshooting-remote-syslog-reachability/.
func Papertrail(addr string, cfg Config) (*Sink, error) {
	cfg.Addr = addr
	cfg.Name = cmp.Or(cfg.Name, "papertrail")
	cfg.MaxMessage = cmp.Or(cfg.MaxMessage, 100_000)
	return New(cfg)
}

// Info is what the log needs to know.
func (s *Sink) Info() auditlog.SinkInfo {
	return auditlog.SinkInfo{Name: s.cfg.Name, MaxEvents: s.cfg.MaxBatch, Linger: s.cfg.Linger, Unconfirmed: true}
}

// Deliver sends a batch through a connection of its own and waits until the
// collector has read it.
func (s *Sink) Deliver(ctx context.Context, batch []auditlog.Entry) error {
	text := s.text
	if s.cfg.Token != nil {
		token, err := s.cfg.Token()
		if err != nil {
			return fmt.Errorf("the token for %s: %w", s.cfg.Addr, err)
		}
		if token = strings.TrimSpace(token); token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`=]"@`, r) }) {
			return fmt.Errorf("the token for %s is empty or has characters that none has", s.cfg.Addr)
		}
		text.Extra = "[" + token + "@41058]"
	}
	var frames, message []byte
	long := map[int]string{}
	for i, e := range batch {
		event, err := e.Event()
		if err != nil {
			long[i] = err.Error()
			continue
		}
		message = event.AppendSyslog(message[:0], text)
		if len(message) > s.cfg.MaxMessage {
			long[i] = fmt.Sprintf("the message has %d bytes, and the collector takes %d", len(message), s.cfg.MaxMessage)
			continue
		}
		frames = strconv.AppendInt(frames, int64(len(message)), 10)
		frames = append(frames, ' ')
		frames = append(frames, message...)
	}
	if len(frames) > 0 {
		if err := s.send(ctx, frames); err != nil {
			return fmt.Errorf("%s: %w", s.cfg.Addr, err)
		}
	}
	if len(long) > 0 {
		return &auditlog.RejectedError{Reasons: long}
	}
	return nil
}

var (
	errEarly = errors.New("the collector closed the connection before it had everything; the batch is sent again")
	errSpoke = errors.New("the collector says something, which none that speaks syslog does; is it one?")
	errStays = errors.New("the collector does not close its side of the connection, so that nothing shows that it has read the batch; it is sent again")
)

// early is errEarly, with why that is so if that is known.
func early(err error) error {
	if err == nil || errors.Is(err, errEarly) {
		return errEarly
	}
	return fmt.Errorf("%w: %w", errEarly, err)
}

// send returns nil when the collector has read the frames.
func (s *Sink) send(ctx context.Context, frames []byte) error {
	conn, err := post.Dial(ctx, s.cfg.Addr, s.cfg.TLS)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	// A collector that goes away, or refuses the client's certificate, says so
	// on the side that nobody else reads.
	ended := make(chan error, 1)
	go func() {
		n, err := conn.Read(make([]byte, 1))
		if n > 0 {
			err = errSpoke
		}
		_ = conn.SetWriteDeadline(time.Unix(1, 0)) // ends a Write that hangs
		ended <- err
	}()
	tcp := conn.NetConn().(*net.TCPConn)
	_, err = conn.Write(frames)
	if err == nil {
		select {
		case read := <-ended:
			if errors.Is(read, io.EOF) {
				return errEarly
			}
			return read
		default:
		}
		if !established(tcp) {
			err = errEarly
		} else if err = conn.CloseWrite(); err == nil {
			err = tcp.CloseWrite() // some only look at TCP's end
		}
	}
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(s.cfg.CloseWait))
	} else {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // for the reason, if there is one
	}
	read := <-ended
	if errors.Is(read, io.EOF) && err == nil {
		// A host whose collector left something unread resets the connection.
		_, read = io.Copy(io.Discard, tcp)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(read, os.ErrDeadlineExceeded) && err == nil:
		return errStays
	case read != nil && !errors.Is(read, io.EOF) && !errors.Is(read, os.ErrDeadlineExceeded):
		return read
	case err != nil:
		return early(err)
	}
	n, err := unacknowledged(tcp)
	if err != nil || n > 1 { // its FIN may still be on the way
		return early(err)
	}
	return nil
}
