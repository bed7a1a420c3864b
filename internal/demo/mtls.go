package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/tlsconfig"
)

// certLife is short, so that a renewal can be watched.
const certLife = 5 * time.Second

// serviceCert is what a service asks for: the names of its role.
func serviceCert(service string) *bootstrap.CertRequest {
	return &bootstrap.CertRequest{Role: "pki/sign/" + service, CommonName: service, DNSNames: []string{service}, TTL: certLife}
}

// mutualTLS has one service call another, while both get new certificates.
func (s *stage) mutualTLS(ctx context.Context) (err error) {
	const caller, callee, stranger = "mcp-gateway", "mcp-hr", "mcp-finance"
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var denied atomic.Bool
	seen := &certificates{by: map[string]map[[32]byte]bool{caller: {}, callee: {}}}
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := tlsconfig.Peer(r)
		seen.add(caller, &peer)
		_, _ = io.WriteString(w, peer.String())
	})}
	drainer, err := tlsconfig.WrapServer(srv, s.sessions[callee].Identity(), tlsconfig.All(tlsconfig.AllowDNS(caller), func(*tlsconfig.PeerIdentity) error {
		if denied.Load() {
			return errors.New("denied")
		}
		return nil
	}))
	if err != nil {
		return err
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(listen, "", "") }()
	defer func() {
		_ = srv.Close() // nobody calls any more
		<-served
		drainer.Close()
	}()
	url := "https://" + listen.Addr().String()

	client := func(service string) *tlsconfig.Transport {
		return tlsconfig.NewTransport(nil, s.sessions[service].Identity(), callee, func(p *tlsconfig.PeerIdentity) error {
			seen.add(callee, p)
			return nil
		})
	}
	gateway := client(caller)
	defer gateway.Close()
	calls, err := load(ctx, gateway, url, caller, func() bool { return seen.count(caller) >= 3 && seen.count(callee) >= 3 })
	if err != nil {
		return err
	}
	s.say("%s calls %s on certificates of %s: %d calls, %d and %d certificates, 0 failed", caller, callee, certLife, calls, seen.count(caller), seen.count(callee))
	peer := seen.newest()
	s.say("%s, %s%s", tls.VersionName(peer.Version), peer.KeyExchange, map[bool]string{true: ", which a quantum computer does not break"}[peer.PostQuantum()])

	other := client(stranger)
	defer other.Close()
	if _, err := ask(ctx, other, url); err == nil {
		return fmt.Errorf("%s was let in", stranger)
	}
	s.say("%s has a certificate of the same authority: %s", stranger, s.paint(red, "refused"))

	// A client of one's own, that keeps sessions to resume them.
	config := tlsconfig.Client(s.sessions[caller].Identity(), callee, tlsconfig.AllowDNS(callee))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for resumed := false; !resumed; { // a renewal in between costs another try
		if resumed, err = handshake(ctx, listen.Addr().String(), config); err != nil {
			return err
		}
	}
	denied.Store(true)
	if _, err := handshake(ctx, listen.Addr().String(), config); err == nil {
		return errors.New("a denied peer resumed its session")
	}
	if answer, err := ask(ctx, gateway, url); err == nil {
		return fmt.Errorf("a denied peer was answered on its open connection: %s", answer)
	}
	s.say("%s is denied from now on: %s on its open connection and with its resumable session", caller, s.paint(red, "refused"))
	return nil
}

// load calls with four workers until enough says so.
func load(ctx context.Context, rt http.RoundTripper, url, want string, enough func() bool) (int64, error) {
	var calls atomic.Int64
	var workers sync.WaitGroup
	errs := make(chan error, 4)
	for range cap(errs) {
		workers.Go(func() {
			for !enough() {
				got, err := ask(ctx, rt, url)
				if err == nil && got != want {
					err = fmt.Errorf("the caller was taken for %q", got)
				}
				if err != nil {
					errs <- err
					return
				}
				calls.Add(1)
			}
			errs <- nil
		})
	}
	workers.Wait()
	var all []error
	for range cap(errs) {
		all = append(all, <-errs)
	}
	return calls.Load(), errors.Join(all...)
}

func ask(ctx context.Context, rt http.RoundTripper, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// handshake makes one request over HTTP/1.1, and says whether it resumed.
func handshake(ctx context.Context, addr string, config *tls.Config) (resumed bool, err error) {
	raw, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, err
	}
	conn := raw.(*tls.Conn)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: mcp-hr\r\nConnection: close\r\n\r\n"); err != nil {
		return false, err
	}
	answer, err := io.ReadAll(conn) // and the ticket
	if err == nil && len(answer) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return conn.ConnectionState().DidResume, err
}

// certificates are those that were seen of each service.
type certificates struct {
	mu   sync.Mutex
	by   map[string]map[[32]byte]bool
	last tlsconfig.PeerIdentity
}

func (c *certificates) add(service string, p *tlsconfig.PeerIdentity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by[service][p.Fingerprint], c.last = true, *p
}

func (c *certificates) count(service string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.by[service])
}

func (c *certificates) newest() tlsconfig.PeerIdentity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
