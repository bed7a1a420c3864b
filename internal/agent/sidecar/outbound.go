package sidecar

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/internal/agent/sidecar/h1"
	"github.com/tamshai/phoenix/tlsconfig"
)

// call makes a service reachable for the program.
func (sc *Sidecar) call(cfg *Call) error {
	edge := newEdge("call", cfg.At, cfg.Peer, Strict)
	sc.edges = append(sc.edges, edge)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(cfg.Protocol != H2C) // which upgrades, and shares no connection between requests
	protocols.SetHTTP2(cfg.Protocol == H2C)
	tlsConfig, serverName := sc.tlsTo(cfg.Peer)
	tlsConfig.Outgoing = sc.users.outgoing(cfg)
	if cfg.Protocol != H2C {
		tlsConfig.Carrier = func(base *http.Transport, judge func(net.Conn) error) tlsconfig.Carrier {
			return h1.NewTransport(base, judge)
		}
	}
	transport := tlsConfig.NewTransport(&http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		Protocols:           protocols,
		HTTP2:               windows(),
		MaxIdleConnsPerHost: 256,
		// Shorter than a callee may take to close what is left of an old
		// generation: then it closes nothing that is still of use here.
		IdleConnTimeout:       min(30*time.Second, sc.host.Drain/2),
		ResponseHeaderTimeout: cfg.Answer,
		ExpectContinueTimeout: time.Second,

		MaxResponseHeaderBytes: maxAnswerHeader,
	}, sc.host.Identity, serverName, edge.allow)
	sc.transports = append(sc.transports, transport)
	var via http.RoundTripper = transport
	if cfg.Protocol == H2C {
		via = streams{transport}
	}
	h := newHop(&hop{
		name: cfg.Peer, to: &url.URL{Scheme: "https", Host: cfg.To}, via: via, own: sc.users.headers(), stall: cfg.Stall, upgrade: cfg.Upgrade, leaving: new(atomic.Bool),
		log: sc.log, running: &sc.calling,
	})
	to := func(w http.ResponseWriter, r *http.Request, host string) {
		p := &passing{host: host}
		if cfg.User != AsNobody {
			var err error
			if p.user, err = sc.users.named(r.Header); err != nil {
				sc.refuseUser(w, r, "call", cfg.Peer, err)
				return
			}
		}
		edge.overTLS()
		h.pass(w, r, p)
	}
	sc.hosts[cfg.Host] = func(w http.ResponseWriter, r *http.Request) { to(w, r, "") }
	if cfg.At == "" {
		return nil
	}
	// The program knows a port of ours, the callee its own name.
	return sc.out(cfg.At, cfg.Protocol == H2C, cfg.Stall, func(w http.ResponseWriter, r *http.Request) { to(w, r, cfg.To) })
}

// tlsTo is how strict to be with one server, and the name to expect.
func (sc *Sidecar) tlsTo(peer string) (c tlsconfig.Config, serverName string) {
	c = sc.tls()
	if strings.Contains(peer, "://") {
		c.AnyServerName = true // the authorizer alone decides
		return c, ""
	}
	return c, peer
}

// out listens for the program.
func (sc *Sidecar) out(at string, h2c bool, stall time.Duration, handler http.HandlerFunc) error {
	l, err := Listen(sc.callCtx, at)
	if err != nil {
		return err
	}
	sc.at[at] = l.Addr()
	srv := newServer(sc.callCtx, handler, defaultHeader, stall, sc.log)
	srv.Protocols = spoken(true, h2c)
	sc.outbound = append(sc.outbound, startFront(srv, bound(sc.own(l, at), defaultConns), stall))
	return nil
}

// forward takes requests for any call by its host, as HTTP_PROXY has them.
func (sc *Sidecar) forward(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		answer(w, http.StatusMethodNotAllowed, "CONNECT asks for a tunnel to somebody else's TLS; the agent makes the TLS: ask for http://"+strings.ToLower(hostOnly(r.Host))+"/")
		return
	case r.URL.Host == "":
		answer(w, http.StatusBadRequest, "this is a proxy, and the request is for no host; set it as HTTP_PROXY")
		return
	case r.URL.Scheme != "http":
		answer(w, http.StatusBadRequest, "the agent makes the TLS; ask for http://")
		return
	}
	host := strings.ToLower(r.URL.Host)
	to := sc.hosts[host]
	if to == nil {
		to = sc.hosts[hostOnly(host)]
	}
	if to == nil {
		answer(w, http.StatusForbidden, "no call is configured for this host; add it to the agent's configuration")
		return
	}
	to(w, r)
}

func hostOnly(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
