package bench_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A weather stands between sessions and real Vault. While it storms it answers
// in Vault's place, cuts connections, and loses answers; it counts what the
// sessions send, whether it passes it on or not.
type weather struct {
	vault  server
	client *http.Client
	fronts []*httptest.Server // HTTP/2 and HTTP/1.1
	outOf  int                // the odds of a fault are 40 to this
	calm   atomic.Bool

	mu       sync.Mutex
	sessions map[wire]*traffic
	logins   map[[32]byte]int // by SecretID
	unwraps  map[[32]byte]int // by wrapping token
	requests int              // all
	faults   map[fault]int    // while it stormed
	broken   []string         // the rules that were broken
}

// A wire is a connection by its two ends: two connections to different fronts
// may share the client's.
type wire struct{ client, front string }

// traffic is what one session sends. Its faults come from a sequence of its
// own, so that they do not depend on how the sessions interleave.
type traffic struct {
	name     string
	random   *rand.Rand
	times    []time.Time // of all its requests
	renewals []time.Time
}

// A fault is what becomes of a request.
type fault string

const (
	none        fault = "passed on"
	serverError fault = "500"
	limited     fault = "429"
	limitedFor  fault = "429 with Retry-After"
	cut         fault = "cut before it was carried out"
	lost        fault = "cut after it was carried out"
	badGateway  fault = "502 after it was carried out"
)

// stormy is how likely each fault is: 40 parts together, of weather.outOf.
var stormy = []struct {
	part int
	kind fault
}{{10, serverError}, {5, limited}, {5, limitedFor}, {8, cut}, {8, lost}, {4, badGateway}}

type connKey struct{}

func newWeather(tb testing.TB, v server, outOf int) *weather {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(v.CACertPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 32}
	w := &weather{
		vault: v, outOf: outOf, client: &http.Client{Transport: transport, Timeout: time.Minute}, sessions: map[wire]*traffic{},
		logins: map[[32]byte]int{}, unwraps: map[[32]byte]int{}, faults: map[fault]int{},
	}
	for _, h2 := range []bool{true, false} {
		front := httptest.NewUnstartedServer(w)
		front.EnableHTTP2 = h2
		front.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		}
		front.StartTLS()
		w.fronts = append(w.fronts, front)
	}
	tb.Cleanup(func() {
		for _, front := range w.fronts {
			front.CloseClientConnections()
			front.Close()
		}
		transport.CloseIdleConnections()
	})
	return w
}

// front is the n-th session's way to Vault: its address and CA.
func (w *weather) front(n int) (addr string, ca []byte) {
	front := w.fronts[n%len(w.fronts)]
	return front.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
}

// dialer makes connections that are known to be the session's.
func (w *weather) dialer(t *traffic) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sessions[wire{conn.LocalAddr().String(), conn.RemoteAddr().String()}] = t
		}
		return conn, err
	}
}

func (w *weather) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the connection was cut under it: it never was a request
	}
	kind := w.count(r, body)
	var answer *http.Response
	if kind == none || kind == lost || kind == badGateway {
		if answer, err = w.pass(r, body); err != nil {
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
	}
	switch kind {
	case cut, lost:
		// The wire, not the stream: whatever else is on it is lost too.
		if conn, ok := r.Context().Value(connKey{}).(*tls.Conn); ok {
			_ = conn.NetConn().Close()
		}
		panic(http.ErrAbortHandler)
	case serverError:
		http.Error(rw, `{"errors":["1 error occurred:\n\t* internal error\n\n"]}`, http.StatusInternalServerError)
	case limitedFor:
		rw.Header().Set("Retry-After", "1")
		fallthrough
	case limited:
		http.Error(rw, `{"errors":["request path \"x\": rate limit quota exceeded"]}`, http.StatusTooManyRequests)
	case badGateway:
		http.Error(rw, "<html>502 Bad Gateway</html>", http.StatusBadGateway)
	case none:
		for name, values := range answer.Header {
			rw.Header()[name] = values
		}
		rw.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(rw, answer.Body)
	}
}

// pass asks Vault. A request that has come this far is carried out, whatever
// becomes of the connection it came on.
func (w *weather) pass(r *http.Request, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, w.vault.Addr()+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	return w.client.Do(req)
}

// count keeps account of a request and says what is to become of it.
func (w *weather) count(r *http.Request, body []byte) fault {
	path, now := strings.TrimPrefix(r.URL.Path, "/v1/"), time.Now()
	front, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.sessions[wire{r.RemoteAddr, front.String()}]
	if t == nil {
		w.broken = append(w.broken, "a request of nobody: "+path)
		return none
	}
	w.requests++
	t.times = append(t.times, now)
	switch {
	case path == "auth/approle/login":
		var in struct {
			SecretID string `json:"secret_id"`
		}
		if json.Unmarshal(body, &in) != nil || in.SecretID == "" {
			w.broken = append(w.broken, "a login of "+t.name+" without a SecretID")
		}
		w.once(w.logins, in.SecretID, "a SecretID of "+t.name+" was sent to log in")
	case path == "sys/wrapping/unwrap":
		w.once(w.unwraps, r.Header.Get("X-Vault-Token"), "a wrapping token of "+t.name+" was sent to be unwrapped")
	case path == "auth/token/renew-self", strings.HasPrefix(path, "sys/leases/renew"):
		t.renewals = append(t.renewals, now)
	}
	if w.calm.Load() {
		return none
	}
	kind, draw := none, t.random.IntN(w.outOf)
	for _, s := range stormy {
		if draw -= s.part; draw < 0 {
			kind = s.kind
			break
		}
	}
	w.faults[kind]++
	return kind
}

// once counts a secret by its hash and says so if it has been seen before.
func (w *weather) once(seen map[[32]byte]int, secret, what string) {
	hash := sha256.Sum256([]byte(secret))
	if seen[hash]++; seen[hash] > 1 {
		w.broken = append(w.broken, fmt.Sprintf("%s %d times", what, seen[hash]))
	}
}

// perMinute is the largest number of them in any minute.
func perMinute(times []time.Time) int {
	// They were sent a little before they were seen, by different amounts: what
	// is sent a minute apart may be seen so much less apart.
	const minute = time.Minute - time.Second
	most, from := 0, 0
	for i, at := range times {
		for at.Sub(times[from]) >= minute {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
