package tlsconfig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// A side is one end of connections: what all of them share.
type side struct {
	Config
	identity   Identity
	authorize  Authorizer
	serverName string // clients: the name to expect, if not that of the connection
	client     bool

	mu       sync.Mutex // for building a snapshot
	snapshot atomic.Pointer[snapshot]
	observed atomic.Uint64 // the newest generation that the metrics know
	knocking refusals      // what the audit log has of them

	knownMu sync.Mutex // for the rest
	known   map[[32]byte]window
	knownOf *Material
	knownAt uint64 // the version of the CRLs
}

// A window is the time in which a chain holds.
type window struct{ from, until time.Time }

func (w window) holds(now time.Time) bool { return !now.Before(w.from) && now.Before(w.until) }

// maxKnown bounds how many peers' chains are remembered.
const maxKnown = 1024

// A verdict is what was found about the peer of one connection, and how long
// it holds without looking at the chain again.
type verdict struct {
	peer     *PeerIdentity
	material *Material
	crls     uint64 // the Revocation's version
	window   window
}

func (s *side) own() x509.ExtKeyUsage {
	if s.client {
		return x509.ExtKeyUsageClientAuth
	}
	return x509.ExtKeyUsageServerAuth
}

func (s *side) peers() x509.ExtKeyUsage {
	if s.client {
		return x509.ExtKeyUsageServerAuth
	}
	return x509.ExtKeyUsageClientAuth
}

func (s *side) name() string {
	if s.client {
		return "client"
	}
	return "server"
}

// judge verifies a connection's peer against what is current, and reports a
// refusal. conn is nil if it is not known.
func (s *side) judge(cs tls.ConnectionState, conn net.Conn) (*verdict, error) {
	v, err := s.look(cs)
	if err != nil {
		s.refused(err, conn)
	}
	return v, err
}

// again is judge for a connection that was judged before. While nothing has
// changed it asks the authorizer alone.
func (s *side) again(cs tls.ConnectionState, before *verdict, conn net.Conn) (*verdict, error) {
	now := s.now()
	if before.material == s.identity.Current() && before.crls == s.Revocation.version() && before.window.holds(now) {
		if err := s.permit(before.peer); err != nil {
			s.refused(err, conn)
			return nil, err
		}
		return before, nil
	}
	return s.judge(cs, conn)
}

func (s *side) look(cs tls.ConnectionState) (*verdict, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, refuse(ReasonNoCertificate, nil, "it showed no certificate; give it one that our trust bundle vouches for")
	}
	v := &verdict{peer: newPeer(cs), material: s.identity.Current(), crls: s.Revocation.version()}
	if v.material.own == nil {
		return nil, refuse(ReasonOwnCertificate, nil, "there is no trust bundle yet; wait until the identity is ready")
	}
	if err := s.vouch(v, cs.PeerCertificates); err != nil {
		return nil, err
	}
	if s.client && !s.AnyServerName {
		name := s.serverName
		if name == "" {
			name = cs.ServerName
		}
		if err := v.peer.Certificate.VerifyHostname(name); err != nil || name == "" {
			return nil, refuse(ReasonName, v.peer.Certificate, "it is not the server %q; look where the name leads, or have its certificate issued for that name", name)
		}
	}
	if err := s.permit(v.peer); err != nil {
		return nil, err
	}
	return v, nil
}

// vouch verifies the chain, or remembers that it did: with the same bundle and
// CRLs the answer is the same.
func (s *side) vouch(v *verdict, presented []*x509.Certificate) error {
	now := s.now()
	s.knownMu.Lock()
	if s.knownOf == v.material && s.knownAt == v.crls {
		v.window = s.known[v.peer.Fingerprint]
	}
	s.knownMu.Unlock()
	if v.window.holds(now) {
		return nil
	}
	chains, err := verifyChain(presented, v.material.roots, now, s.peers())
	if err != nil {
		return err
	}
	if v.window, err = s.Revocation.judge(chains, now); err != nil {
		return err
	}
	s.knownMu.Lock()
	defer s.knownMu.Unlock()
	if s.knownOf != v.material || s.knownAt != v.crls || len(s.known) >= maxKnown {
		s.known, s.knownOf, s.knownAt = map[[32]byte]window{}, v.material, v.crls
	}
	s.known[v.peer.Fingerprint] = v.window
	return nil
}

func (s *side) permit(p *PeerIdentity) error {
	if err := s.authorize.ask(p); err != nil {
		return refuse(ReasonUnauthorized, p.Certificate, "%w", err)
	}
	return nil
}

// refused reports a refusal to the metrics and the log. Only a peer that our
// bundle vouches for is worth an audit event: strangers can knock as often as
// they like.
func (s *side) refused(err error, conn net.Conn) {
	reason := reasonOf(err)
	if s.Metrics != nil {
		s.Metrics.Refused(s.name(), reason)
	}
	s.log().Warn("refused a TLS peer", slog.String("side", s.name()), slog.String("reason", string(reason)), slog.Any("error", err))
	if s.Audit == nil || (reason != ReasonUnauthorized && reason != ReasonRevoked) {
		return
	}
	var r *RefusedError
	_ = errors.As(err, &r)
	peer, from := named(r.leaf), s.from(conn)
	count := s.knocking.count(knock{peer.Fingerprint, reason, from}, s.now())
	if count == 0 {
		return
	}
	if err := s.Audit.Append(context.Background(), auditlog.Event{
		Severity: auditlog.Warning, Category: auditlog.Authorization, Action: "tls.refuse", Outcome: auditlog.Blocked,
		Actor: auditlog.Actor{Peer: peer.String(), Client: from}, Attributes: map[string]string{
			"side": s.name(), "reason": string(reason), "error": r.why(), "serial": r.leaf.SerialNumber.Text(16), "count": strconv.Itoa(count),
		},
	}); err != nil {
		s.log().Error("a refusal could not be recorded", slog.Any("error", err)) // it stays refused
	}
}

// from is the address of who came to a server.
func (s *side) from(conn net.Conn) string {
	if conn == nil || s.client || conn.RemoteAddr() == nil {
		return ""
	}
	from := conn.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(from); err == nil {
		return host
	}
	return from
}

// observe tells the metrics of a generation once.
func (s *side) observe(m *Material) {
	if before := s.observed.Load(); s.Metrics != nil && m.generation > before && s.observed.CompareAndSwap(before, m.generation) {
		s.Metrics.Identity(s.name(), m.generation, m.Expires())
	}
}
