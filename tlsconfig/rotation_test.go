package tlsconfig_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A rotor publishes certificates and remembers when it published each.
type rotor struct {
	t        *testing.T
	spec     testpki.Spec
	identity *tlsconfig.Live
	mu       sync.Mutex
	numbers  map[string]int // by certificate
	at       []time.Time    // when it was replaced; the newest has none
	newest   atomic.Int64
}

func newRotor(t *testing.T, spec testpki.Spec) *rotor {
	return &rotor{t: t, spec: spec, identity: new(tlsconfig.Live), numbers: map[string]int{}}
}

func (r *rotor) publish(p testpki.Pair, trusted ...*testpki.CA) {
	m := material(r.t, p, trusted...)
	r.mu.Lock()
	n, seen := r.numbers[string(p.Leaf().Raw)]
	if !seen {
		n = len(r.numbers)
		r.numbers[string(p.Leaf().Raw)] = n
		if n > 0 {
			r.at = append(r.at, time.Now())
		}
	}
	r.mu.Unlock()
	r.identity.Publish(m)
	r.newest.Store(int64(n))
}

// check says whether a certificate was good for a request that began at start:
// it must not have been replaced more than deadline before.
func (r *rotor) check(raw []byte, start time.Time, deadline time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.numbers[string(raw)]
	if !ok {
		return errors.New("an unknown certificate")
	}
	if n < len(r.at) && start.Sub(r.at[n]) > deadline {
		return fmt.Errorf("certificate %d was replaced %v before", n, start.Sub(r.at[n]))
	}
	return nil
}

// The acceptance: under load 1,000 rotations and 10 changes of the authority
// cost no request, and every request is on a certificate that was current
// within the deadline.
func TestRotationUnderLoad(t *testing.T) {
	const workers, rotations, rolls = 64, 1000, 10
	const deadline = time.Minute // generous, because a busy machine must not fail the test
	server, client := newRotor(t, serverSpec), newRotor(t, clientSpec)
	ca := testpki.NewCA("root 0")
	server.publish(ca.Issue(serverSpec), ca)
	client.publish(ca.Issue(clientSpec), ca)

	// ML-KEM would be most of the time under the race detector.
	c := tlsconfig.Config{DrainTimeout: deadline, CurvePreferences: []tls.CurveID{tls.X25519}}
	var failed sync.Map
	url, drainer := serve(t, c, server.identity, tlsconfig.AllowDNS("mcp-gateway"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := tlsconfig.Peer(r)
		if !ok {
			failed.Store("no peer", true)
			return
		}
		// Exactly: a client never sends a request over a connection that shows
		// a certificate older than what was current when the request began.
		var began int
		fmt.Sscan(r.Header.Get("Began"), &began)
		client.mu.Lock()
		shown, known := client.numbers[string(p.Certificate.Raw)]
		client.mu.Unlock()
		if !known || shown < began {
			failed.Store(fmt.Sprintf("the client showed certificate %d after %d had been published", shown, began), true)
		}
		io.Copy(w, r.Body)
	}))
	var vias []*tlsconfig.Transport
	for _, http2 := range []bool{false, true} {
		base := &http.Transport{MaxIdleConnsPerHost: workers, Protocols: new(http.Protocols)}
		base.Protocols.SetHTTP1(!http2)
		base.Protocols.SetHTTP2(http2)
		via := c.NewTransport(base, client.identity, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
		defer via.Close()
		vias = append(vias, via)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var requests [2]atomic.Int64
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			via := vias[i%2]
			for ctx.Err() == nil {
				method, body := http.MethodGet, ""
				if i%4 < 2 {
					method, body = http.MethodPost, "hello"
				}
				req, _ := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
				req.Header.Set("Began", fmt.Sprint(client.newest.Load()))
				start := time.Now()
				resp, err := via.RoundTrip(req)
				if err != nil {
					failed.Store(err.Error(), true)
					continue
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(got) != body || resp.ProtoMajor != 1+i%2 {
					failed.Store(fmt.Sprint(resp.Status, resp.Proto, err), true)
				}
				if err := server.check(resp.TLS.PeerCertificates[0].Raw, start, deadline); err != nil {
					failed.Store(err.Error(), true)
				}
				requests[i%2].Add(1)
			}
		})
	}
	progress := func(n int64) {
		t.Helper()
		one, two := requests[0].Load(), requests[1].Load()
		wait(t, "traffic goes on", func() bool { return requests[0].Load() >= one+n && requests[1].Load() >= two+n })
	}
	old := func() int { return drainer.Old() + vias[0].Old() + vias[1].Old() }
	for roll := range rolls {
		next := testpki.NewCA(fmt.Sprint("root ", roll+1))
		// Add, issue anew, and take away when nobody is on the old generation.
		s, c := ca.Issue(serverSpec), ca.Issue(clientSpec)
		server.publish(s, ca, next)
		client.publish(c, ca, next)
		for range rotations / rolls / 2 {
			server.publish(next.Issue(serverSpec), ca, next)
			s = next.Issue(serverSpec)
			client.publish(next.Issue(clientSpec), ca, next)
		}
		server.publish(s, ca, next)
		wait(t, "nobody is on an old generation", func() bool { return old() == 0 })
		c = next.Issue(clientSpec)
		server.publish(s, next)
		client.publish(c, next)
		ca = next
		progress(workers / 2)
	}
	stop()
	all.Wait()
	failed.Range(func(what, _ any) bool { t.Error(what); return true })
	t.Logf("%d requests over HTTP/1.1 and %d over HTTP/2, %d + %d certificates", requests[0].Load(), requests[1].Load(), len(server.numbers), len(client.numbers))
	if requests[0].Load() == 0 || requests[1].Load() == 0 || len(server.numbers)+len(client.numbers) < rotations {
		t.Error("that was no load")
	}
	wait(t, "in the end nobody is on an old generation", func() bool { return old() == 0 })
}
