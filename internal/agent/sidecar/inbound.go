package sidecar

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
	"github.com/tamshai/phoenix/tlsconfig"
)

// An inbound is a port for other services.
type inbound struct {
	sc    *Sidecar
	at    string
	edges edges
	hop   *hop
}

// serve begins to take what comes in.
func (sc *Sidecar) serve(cfg *Inbound) error {
	transport := sc.program(cfg.To, cfg.Answer)
	h2c := cfg.Protocol == H2C
	var via http.RoundTripper
	if h2c {
		transport.Protocols, transport.HTTP2 = spoken(false, true), windows()
		via = streams{transport}
		sc.idle = append(sc.idle, transport.CloseIdleConnections)
	} else {
		plain := h1.NewTransport(transport, nil)
		via = plain
		sc.idle = append(sc.idle, plain.CloseIdleConnections)
	}
	in := &inbound{sc: sc, at: cfg.At, edges: newEdges(cfg)}
	in.hop = newHop(&hop{
		name: "the program behind " + cfg.At, to: programURL(cfg.To), via: via, own: sc.users.headers(), stall: cfg.Stall, maxBody: cfg.MaxBody, upgrade: cfg.Upgrade, leaving: &sc.leaving,
		log: sc.log, running: &sc.serving,
	})
	sc.edges = append(sc.edges, in.edges...)

	secure := newServer(sc.serveCtx, http.HandlerFunc(in.overTLS), cfg.MaxHeader, cfg.Stall, sc.log)
	secure.ConnState = sc.guests.state
	drainer, err := sc.tls().WrapServer(secure, sc.host.Identity, in.edges.authorize())
	if err != nil {
		return err
	}
	sc.drainers = append(sc.drainers, drainer)
	raw, err := Listen(sc.serveCtx, cfg.At)
	if err != nil {
		return err
	}
	l := bound(raw, cfg.MaxConns)
	sc.at[cfg.At] = raw.Addr()
	sc.doors = append(sc.doors, l)
	if !in.edges.mixed() {
		sc.inbound = append(sc.inbound, startFront(secure, l, cfg.Stall))
		return nil
	}
	f := forked(sc.serveCtx, l, secure.ReadHeaderTimeout)
	sc.forks = append(sc.forks, f)
	plain := newServer(sc.serveCtx, http.HandlerFunc(in.overPlain), cfg.MaxHeader, cfg.Stall, sc.log)
	plain.Protocols = spoken(true, h2c)
	plain.ConnState = sc.guests.state
	sc.inbound = append(sc.inbound, startFront(secure, f.tls, cfg.Stall), startFront(plain, f.plain, cfg.Stall))
	return nil
}

func (in *inbound) overTLS(w http.ResponseWriter, r *http.Request) {
	peer, _ := tlsconfig.Peer(r)
	e := in.edges.of(&peer)
	if e == nil { // tlsconfig has asked the same
		answer(w, http.StatusForbidden, "the caller is not among the peers of this port")
		return
	}
	in.onBehalf(w, r, &peer, e)
}

func (in *inbound) overPlain(w http.ResponseWriter, r *http.Request) {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	e := in.edges.ofPlain(from.Addr())
	if e == nil {
		in.sc.counters.Refused("server", tlsconfig.ReasonPlaintext)
		in.sc.log.Warn("a plain request was refused", "at", in.at, "from", from.Addr().Unmap())
		w.Header().Set("Connection", "close")
		answer(w, http.StatusForbidden, "plain HTTP is not accepted from this address; call over mutual TLS")
		return
	}
	e.overPlain()
	if source := from.Addr().Unmap().String(); e.news(source) {
		if err := in.report(r.Context(), e, source); err != nil {
			e.forget(source)
			in.sc.log.Error("a plain request could not be recorded, and is refused", "error", err)
			answer(w, http.StatusServiceUnavailable, "the audit log cannot be written; see the agent's log")
			return
		}
	}
	in.onBehalf(w, r, nil, e)
}

// onBehalf finds out for whom the peer calls, and passes the request on. The peer
// is nil for a plain request.
func (in *inbound) onBehalf(w http.ResponseWriter, r *http.Request, peer *tlsconfig.PeerIdentity, e *edge) {
	if in.sc.leaving.Load() {
		w.Header().Set("Connection", "close") // GOAWAY in HTTP/2
	}
	p := &passing{}
	user, err := in.sc.users.proven(r.Header, peer, e)
	if err == nil {
		p.set, err = in.sc.users.tell(user)
	}
	if err != nil {
		in.sc.refuseUser(w, r, "serve", e.peer, err)
		return
	}
	if peer != nil {
		e.overTLS()
		p.peer = e.tells
	}
	in.hop.pass(w, r, p)
}

// report records that somebody still comes without TLS.
func (in *inbound) report(ctx context.Context, e *edge, source string) error {
	in.sc.log.Warn("a plain request, which a strict edge would refuse", "at", in.at, "edge", e.peer, "from", source)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	event := auditlog.Suspicious("sidecar.plain", in.at, auditlog.Notice)
	event.Actor.Client = source
	event.Attributes = map[string]string{"edge": e.peer}
	return in.sc.host.Audit.Append(ctx, event)
}
