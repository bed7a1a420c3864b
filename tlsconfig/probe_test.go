package tlsconfig_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// strict is a server as it should be.
func strict(ca *testpki.CA, p testpki.Pair) *tls.Config {
	c := plain(p)
	c.ClientAuth, c.MinVersion, c.ClientCAs = tls.RequireAndVerifyClientCert, tls.VersionTLS13, x509.NewCertPool()
	c.NextProtos = []string{"h2", "http/1.1"}
	c.ClientCAs.AddCert(ca.Cert)
	return c
}

// accept hands each connection to serve until the test ends.
func accept(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			serve(conn)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// website runs an HTTP server on a listener, with TLS if there is a
// configuration.
func website(t testing.TB, config *tls.Config, handler http.HandlerFunc, wrap func(net.Listener) net.Listener) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if handler == nil {
		handler = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }
	}
	srv := &http.Server{Handler: handler, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	if config == nil {
		go srv.Serve(l)
	} else {
		go srv.ServeTLS(wrapped(l, wrap), "", "")
	}
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func wrapped(l net.Listener, wrap func(net.Listener) net.Listener) net.Listener {
	if wrap == nil {
		return l
	}
	return wrap(l)
}

// A dual listener answers by itself who speaks HTTP in the clear.
type dual struct {
	net.Listener
	says string
}

func (d dual) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := bufio.NewReader(conn)
		if first, err := r.Peek(1); err != nil || first[0] == 22 {
			return peeked{conn, r}, nil
		}
		r.ReadString('\n')
		fmt.Fprint(conn, d.says)
		conn.Close()
	}
}

// A split listener serves HTTP/2 in the clear beside TLS, and nothing else in
// the clear, as multiplexers do whose rule is the client's preface.
type split struct {
	net.Listener
	clear *http.Server
}

func (s split) Accept() (net.Conn, error) {
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := bufio.NewReader(conn)
		switch first, _ := r.Peek(1); string(first) {
		case "\x16":
			return peeked{conn, r}, nil
		case "P":
			go s.clear.Serve(&once{Listener: s.Listener, conn: peeked{conn, r}})
		default:
			conn.Close()
		}
	}
}

// A once listener has one connection.
type once struct {
	net.Listener
	conn net.Conn
}

func (o *once) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, net.ErrClosed
	}
	conn := o.conn
	o.conn = nil
	return conn, nil
}

func (o *once) Close() error { return nil }

type peeked struct {
	net.Conn
	r io.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func codes(r *tlsconfig.Report) string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, string(f.Code))
	}
	return strings.Join(list, " ")
}

// Each server has its defects, and the probe finds them and no others.
func TestProbeFinds(t *testing.T) {
	ca, other := testpki.NewCA("root"), testpki.NewCA("other")
	good, client := ca.Issue(serverSpec), ca.Issue(clientSpec)
	with := func(change func(*tls.Config)) *tls.Config {
		c := strict(ca, good)
		change(c)
		return c
	}
	showing := func(p testpki.Pair) *tls.Config {
		return strict(ca, p)
	}
	now := time.Now()
	dated := func(by *testpki.CA, from, until time.Duration) *tls.Config {
		spec := serverSpec
		spec.NotBefore, spec.NotAfter = now.Add(from), now.Add(until)
		return showing(by.Issue(spec))
	}
	forClients := serverSpec
	forClients.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	answering := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			roots := x509.NewCertPool()
			roots.AddCert(ca.Cert)
			for _, c := range r.TLS.PeerCertificates {
				if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
					return
				}
			}
			http.Error(w, text, status)
		}
	}
	tests := []struct {
		name    string
		config  *tls.Config // nil: in the clear
		handler http.HandlerFunc
		wrap    func(net.Listener) net.Listener
		change  func(*tlsconfig.Endpoint, *tlsconfig.ProbeConfig)
		want    string
	}{
		{name: "sound", config: strict(ca, good)},
		{name: "in the clear", want: "plaintext no_tls"},
		{name: "in the clear, and denying", handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadRequest) }, want: "plaintext no_tls"},
		{name: "both on one port", config: strict(ca, good), wrap: func(l net.Listener) net.Listener { return dual{l, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"} }, want: "plaintext"},
		{name: "a redirect in the clear", config: strict(ca, good), wrap: func(l net.Listener) net.Listener {
			return dual{l, "HTTP/1.1 301 Moved\r\nLocation: https://mcp-hr/\r\n\r\n"}
		}, want: "plaintext"},
		{name: "another protocol in the clear", config: strict(ca, good), wrap: func(l net.Listener) net.Listener { return dual{l, "220 smtp\r\n"} }, want: "plaintext"},
		{name: "HTTP/2 in the clear on the same port", config: strict(ca, good), wrap: func(l net.Listener) net.Listener {
			clear := &http.Server{Protocols: new(http.Protocols), Handler: http.NotFoundHandler()}
			clear.Protocols.SetUnencryptedHTTP2(true)
			t.Cleanup(func() { clear.Close() })
			return split{l, clear}
		}, want: "plaintext"},
		{name: "nginx's word for plaintext", config: strict(ca, good), wrap: func(l net.Listener) net.Listener {
			return dual{l, "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<center>The plain HTTP request was sent to HTTPS port</center>"}
		}},
		{name: "an alert for plaintext", config: strict(ca, good), wrap: func(l net.Listener) net.Listener { return dual{l, "\x15\x03\x03\x00\x02\x02\x16"} }},

		{name: "no client certificate asked for", config: with(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), want: "no_client_certificate"},
		{name: "a client certificate if it likes", config: with(func(c *tls.Config) { c.ClientAuth = tls.VerifyClientCertIfGiven }), want: "no_client_certificate"},
		{name: "401 for those without", config: with(func(c *tls.Config) { c.ClientAuth = tls.VerifyClientCertIfGiven }), handler: answering(401, "who are you?"), want: "no_client_certificate"},
		{name: "nginx's word for those without", config: with(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }),
			handler: answering(400, "<center>No required SSL certificate was sent</center>")},
		{name: "any client certificate", config: with(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), want: "foreign_client"},
		{name: "any client certificate of that issuer's name", config: with(func(c *tls.Config) {
			c.ClientAuth = tls.RequireAnyClientCert
			c.VerifyConnection = func(cs tls.ConnectionState) error {
				if leaf := cs.PeerCertificates[0]; leaf.Issuer.CommonName != "root" || leaf.VerifyHostname("mcp-gateway") != nil {
					return errors.New("no")
				}
				return nil
			}
		}), want: "foreign_client"},
		{name: "a default server for anybody", config: byName(strict(ca, good), with(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert })), want: "no_client_certificate"},
		{name: "a default server for those without", config: byName(strict(ca, good), with(func(c *tls.Config) { c.ClientAuth = tls.VerifyClientCertIfGiven })), want: "no_client_certificate"},
		{name: "a default server for any client certificate", config: byName(strict(ca, good), with(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })), want: "foreign_client"},
		{name: "a default server that is as strict", config: byName(strict(ca, good), strict(ca, good))},
		{name: "nobody without a name", config: byName(strict(ca, good), nil)},
		{name: "another authority's clients", config: with(func(c *tls.Config) { c.ClientCAs = x509.NewCertPool(); c.ClientCAs.AddCert(other.Cert) }), want: "client_refused"},

		{name: "TLS 1.2 too", config: with(func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }), want: "old_tls"},
		{name: "TLS 1.2 alone", config: with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), want: "old_tls"},
		{name: "TLS 1.0 alone", config: with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 }), want: "old_tls"},
		{name: "TLS 1.2, for anybody", config: with(func(c *tls.Config) {
			c.MinVersion, c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.VersionTLS12, tls.NoClientCert
		}), want: "no_client_certificate old_tls"},

		{name: "another name", config: showing(ca.Issue(testpki.Spec{DNS: []string{"mcp-tax"}})), want: "identity"},
		{name: "the name as common name alone", config: showing(ca.Issue(testpki.Spec{CN: "mcp-hr"})), want: "identity"},
		{name: "its URI", config: strict(ca, good), change: expect("mcp-hr", "spiffe://tamshai.example/mcp-hr")},
		{name: "another URI", config: strict(ca, good), change: expect("mcp-hr", "spiffe://tamshai.example/mcp-tax"), want: "identity"},
		{name: "one name of three", config: strict(ca, good), change: expect("mcp-hr", "localhost", "10.0.0.1"), want: "identity identity"},
		{name: "the address as name", config: showing(ca.Issue(testpki.Spec{IP: []net.IP{net.IPv4(127, 0, 0, 1)}})), change: expect()},
		{name: "not the address", config: strict(ca, good), change: expect(), want: "identity"},

		{name: "expired", config: dated(ca, -2*time.Hour, -time.Hour), want: "expired"},
		{name: "expired, by another authority, for another name", config: dated(other, -2*time.Hour, -time.Hour), change: expect("mcp-tax"), want: "expired untrusted identity"},
		{name: "not yet valid", config: dated(ca, time.Hour, 2*time.Hour), want: "not_yet_valid"},
		{name: "in its last fifth", config: dated(ca, -9*time.Hour, time.Hour), want: "expires_soon"},
		{name: "short-lived", config: dated(ca, -2*time.Hour, time.Hour)},
		{name: "sooner than asked for", config: dated(ca, -2*time.Hour, time.Hour), change: warn(2 * time.Hour), want: "expires_soon"},
		{name: "later than asked for", config: dated(ca, -9*time.Hour, time.Hour), change: warn(30 * time.Minute)},
		{name: "another authority", config: showing(other.Issue(serverSpec)), want: "untrusted"},
		{name: "self-signed", config: showing(testpki.SelfSigned(serverSpec)), want: "untrusted"},
		{name: "not for servers", config: showing(ca.Issue(forClients)), want: "usage"},
		{name: "below an intermediate", config: showing(ca.Intermediate("sub").Issue(serverSpec))},
		{name: "without its intermediate", config: func() *tls.Config {
			p := ca.Intermediate("sub").Issue(serverSpec)
			p.Chain = p.Chain[:1]
			return showing(p)
		}(), want: "untrusted"},

		{name: "public", config: with(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), change: func(e *tlsconfig.Endpoint, c *tlsconfig.ProbeConfig) {
			e.Public, c.Client, c.Bundle = true, nil, certs([]*testpki.CA{ca})
		}},
		{name: "without a client certificate of ours", config: strict(ca, good), change: func(_ *tlsconfig.Endpoint, c *tlsconfig.ProbeConfig) {
			c.Client, c.Bundle = nil, certs([]*testpki.CA{ca})
		}, want: "unseen"},
		{name: "any client, without one of ours", config: with(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), change: func(_ *tlsconfig.Endpoint, c *tlsconfig.ProbeConfig) {
			c.Client, c.Bundle = nil, certs([]*testpki.CA{ca})
		}, want: "foreign_client unseen"},
		{name: "the system's authorities", config: strict(ca, good), change: func(_ *tlsconfig.Endpoint, c *tlsconfig.ProbeConfig) { c.Client = nil }, want: "untrusted unseen"},
		{name: "HTTP/2 alone", config: with(func(c *tls.Config) { c.NextProtos = []string{"h2"} })},
		{name: "HTTP/2 alone, for anybody", config: with(func(c *tls.Config) { c.NextProtos, c.ClientAuth = []string{"h2"}, tls.RequestClientCert }), want: "no_client_certificate"},
		{name: "HTTP/1.1 alone", config: with(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} })},
		{name: "as any TLS", config: strict(ca, good), change: func(e *tlsconfig.Endpoint, _ *tlsconfig.ProbeConfig) { e.Protocol = tlsconfig.ProtocolTLS }},
		{name: "as any TLS, for anybody", config: with(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }),
			change: func(e *tlsconfig.Endpoint, _ *tlsconfig.ProbeConfig) { e.Protocol = "" }, want: "no_client_certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := tlsconfig.Endpoint{Addr: website(t, tt.config, tt.handler, tt.wrap), Protocol: tlsconfig.ProtocolHTTPS, Identity: []string{"mcp-hr"}}
			c := tlsconfig.ProbeConfig{Client: tlsconfig.Static(material(t, client, ca))}
			if tt.change != nil {
				tt.change(&e, &c)
			}
			r, err := tlsconfig.Probe(t.Context(), e, c)
			if err != nil {
				t.Fatal(err)
			}
			if got := codes(r); got != tt.want {
				t.Errorf("got %q, want %q: %+v", got, tt.want, r.Findings)
			}
			if want := tt.want == "" || tt.want == "unseen"; r.OK() != want {
				t.Errorf("OK is %t, want %t", r.OK(), want)
			}
			for _, f := range r.Findings {
				if f.Message == "" || f.Remedy == "" {
					t.Errorf("%+v does not say what to do", f)
				}
			}
		})
	}
}

// byName is a server of several: one for clients that name mcp-hr, and another
// for everybody else, whom it hangs up on if there is none.
func byName(named, others *tls.Config) *tls.Config {
	return &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case hello.ServerName == "mcp-hr":
			return named, nil
		case others == nil:
			return nil, errors.New("no such server")
		}
		return others, nil
	}}
}

func expect(names ...string) func(*tlsconfig.Endpoint, *tlsconfig.ProbeConfig) {
	return func(e *tlsconfig.Endpoint, _ *tlsconfig.ProbeConfig) { e.Identity = names }
}

func warn(before time.Duration) func(*tlsconfig.Endpoint, *tlsconfig.ProbeConfig) {
	return func(_ *tlsconfig.Endpoint, c *tlsconfig.ProbeConfig) { c.WarnBefore = before }
}

// A server made by this package is as it should be, and the report tells of it.
func TestProbeOwnServer(t *testing.T) {
	ca := testpki.NewCA("root")
	pair, client := ca.Issue(serverSpec), ca.Issue(clientSpec)
	url, _ := serve(t, tlsconfig.Config{}, tlsconfig.Static(material(t, pair, ca)), tlsconfig.AllowDNS("mcp-gateway"), nil)
	probe := func(client testpki.Pair) *tlsconfig.Report {
		r, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: strings.TrimPrefix(url, "https://"), Protocol: tlsconfig.ProtocolHTTPS, Identity: []string{"mcp-hr"}},
			tlsconfig.ProbeConfig{Client: tlsconfig.Static(material(t, client, ca))})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := probe(client)
	if len(r.Findings) > 0 || !r.Accepted || r.Version != tls.VersionTLS13 || r.KeyExchange != tls.X25519MLKEM768 || !r.PostQuantum() || r.ALPN != "h2" ||
		!r.Expires.Equal(pair.Leaf().NotAfter) || !slices.Equal(r.Names, []string{"mcp-hr", "spiffe://tamshai.example/mcp-hr"}) || r.Issuer != "CN=root" {
		t.Errorf("%+v", r)
	}
	// One that is trusted, and not allowed, is told apart from those.
	if r := probe(ca.Issue(testpki.Spec{DNS: []string{"mcp-ui"}})); codes(r) != "client_refused" || r.Accepted || r.Findings[0].Severity != tlsconfig.SeverityWarning {
		t.Errorf("%+v", r)
	}
}

func TestProbeCannot(t *testing.T) {
	ca := testpki.NewCA("root")
	gone, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: gone}, tlsconfig.ProbeConfig{})
	if !errors.Is(err, tlsconfig.ErrUnreachable) || !strings.Contains(err.Error(), gone) {
		t.Errorf("nothing listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	addr := accept(t, func(net.Conn) { cancel() })
	if _, err := tlsconfig.Probe(ctx, tlsconfig.Endpoint{Addr: addr}, tlsconfig.ProbeConfig{}); !errors.Is(err, context.Canceled) || errors.Is(err, tlsconfig.ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
	for want, e := range map[string]tlsconfig.Endpoint{
		"write host:port": {Addr: "mcp-hr"},
		`"gopher"`:        {Addr: "mcp-hr:70", Protocol: "gopher"},
	} {
		if _, err := tlsconfig.Probe(t.Context(), e, tlsconfig.ProbeConfig{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %s", e, err, want)
		}
	}
	expired := tlsconfig.ProbeConfig{Client: tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), Now: func() time.Time { return time.Now().Add(48 * time.Hour) }}
	if _, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: addr}, expired); reason(err) != tlsconfig.ReasonOwnCertificate {
		t.Errorf("an expired client: %v", err)
	}
	if _, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: addr}, tlsconfig.ProbeConfig{Client: new(tlsconfig.Live)}); reason(err) != tlsconfig.ReasonOwnCertificate {
		t.Errorf("a client without a certificate yet: %v", err)
	}
}

// Servers that say nothing, or too little too slowly, take no longer than the
// time-outs, and pass for nothing better than they are.
func TestProbeIsBounded(t *testing.T) {
	ca := testpki.NewCA("root")
	config := strict(ca, ca.Issue(serverSpec))
	lax := config.Clone()
	lax.ClientAuth = tls.RequestClientCert
	client := material(t, ca.Issue(clientSpec), ca)
	hold := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	tests := []struct {
		name, want string
		protocol   tlsconfig.Protocol
		serve      func(net.Conn)
	}{
		{"silent", "no_tls", tlsconfig.ProtocolHTTPS, hold},
		{"a trickle", "plaintext no_tls", tlsconfig.ProtocolHTTPS, func(conn net.Conn) {
			go hold(conn)
			for range 1_000_000 {
				if _, err := conn.Write([]byte("H")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"a flood", "plaintext no_tls", tlsconfig.ProtocolMongoDB, func(conn net.Conn) {
			go hold(conn)
			for {
				if _, err := conn.Write(bytes.Repeat([]byte("HTTP/1.1 400 "), 1000)); err != nil {
					return
				}
			}
		}},
		{"an SSLRequest without an answer", "no_tls", tlsconfig.ProtocolPostgres, hold},
		{"silent over TLS", "no_client_certificate client_refused", tlsconfig.ProtocolHTTPS, func(conn net.Conn) { hold(tls.Server(conn, lax)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var serving sync.WaitGroup
				dial := func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					serving.Go(func() { defer theirs.Close(); tt.serve(theirs) })
					return ours, nil
				}
				begin := time.Now() // by the bubble's clock, at which the certificates are not valid yet
				r, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: "mcp-hr:443", Protocol: tt.protocol},
					tlsconfig.ProbeConfig{Client: tlsconfig.Static(client), Dial: dial, Now: func() time.Time { return client.Expires().Add(-59 * time.Minute) }})
				took := time.Since(begin)
				serving.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if got := codes(r); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if took > 8*5*time.Second {
					t.Errorf("it took %s, more than eight time-outs", took)
				}
			})
		})
	}
}

// Nothing that a server says reaches a terminal as it is.
func TestProbeEscapes(t *testing.T) {
	const esc = "\x1b[2J\u009b1A\u202e"
	evil := testpki.NewCA("root" + esc)
	pair := evil.Issue(testpki.Spec{CN: "mcp-hr" + esc})
	ca := testpki.NewCA("root")
	config := strict(ca, pair)
	config.ClientAuth = tls.RequestClientCert
	for _, protocol := range tlsconfig.Protocols() {
		addr := accept(t, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			first, err := r.Peek(8)
			if err == nil && first[0] == 0 && first[4] == 4 { // an SSLRequest
				r.Discard(8)
				io.WriteString(conn, "S")
				first, err = r.Peek(1)
			}
			over := net.Conn(conn)
			if err == nil && first[0] == 22 {
				secure := tls.Server(peeked{conn, r}, config)
				if secure.Handshake() != nil {
					return
				}
				over = secure
			}
			fmt.Fprintf(over, "E\x00\x00\x00\x21C28%s\x00M%s\x00\x00\n", esc, esc)
			io.Copy(io.Discard, over)
		})
		r, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: addr, Protocol: protocol, Identity: []string{"mcp-hr"}},
			tlsconfig.ProbeConfig{Bundle: certs([]*testpki.CA{ca})})
		if err != nil {
			t.Fatal(err)
		}
		if got := codes(r); got != "plaintext untrusted identity no_client_certificate unseen" && got != "plaintext untrusted identity no_client_certificate unseen old_tls" {
			t.Errorf("%s: got %q", protocol, got)
		}
		if text := fmt.Sprint(r); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: a control character is left: %q", protocol, text)
		}
	}
}

func ExampleProbe() {
	ca := testpki.NewCA("root")
	server, client := ca.Issue(testpki.Spec{DNS: []string{"mcp-hr"}}), ca.Issue(testpki.Spec{DNS: []string{"mcp-gateway"}})
	bundle := []*x509.Certificate{ca.Cert}
	theirs, err := tlsconfig.NewMaterial(server.Key, server.Chain, bundle)
	if err != nil {
		log.Fatal(err)
	}
	ours, err := tlsconfig.NewMaterial(client.Key, client.Chain, bundle)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	// A server that somebody has made to be found out: it does not ask for
	// client certificates.
	config := tlsconfig.Server(tlsconfig.Static(theirs), tlsconfig.AllowTrusted())
	config.GetConfigForClient, config.VerifyConnection = nil, nil
	config.ClientAuth = tls.NoClientCert
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{server.Leaf().Raw}, PrivateKey: server.Key}}
	srv := &http.Server{TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(l, "", "")
	defer srv.Close()

	report, err := tlsconfig.Probe(context.Background(), tlsconfig.Endpoint{
		Addr: l.Addr().String(), Protocol: tlsconfig.ProtocolHTTPS, Identity: []string{"mcp-hr"},
	}, tlsconfig.ProbeConfig{Client: tlsconfig.Static(ours)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tls.VersionName(report.Version), report.KeyExchange, report.Names)
	for _, f := range report.Findings {
		fmt.Printf("%s: %s\n-> %s\n", f.Severity, f.Message, f.Remedy)
	}
	// Output:
	// TLS 1.3 X25519MLKEM768 [mcp-hr]
	// problem: it asks clients for no certificate, so that anybody may connect
	// -> have it require client certificates of the bundle's authorities
}
