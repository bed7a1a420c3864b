package tlsconfig_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Defects do not hide each other: whatever a server has of them is found, and
// nothing else.
func TestProbeFindsAllTogether(t *testing.T) {
	ca, other := testpki.NewCA("root"), testpki.NewCA("other")
	client := tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		has := func(code tlsconfig.Code) bool {
			yes := rapid.Bool().Draw(t, string(code))
			if yes {
				want = append(want, string(code))
			}
			return yes
		}
		clear := has(tlsconfig.CodePlaintext)
		spec, issuer := serverSpec, ca
		switch rapid.IntRange(0, 3).Draw(t, "dates") {
		case 1:
			spec.NotAfter = time.Now().Add(-time.Minute)
			want = append(want, "expired")
		case 2:
			spec.NotBefore, spec.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
			want = append(want, "not_yet_valid")
		case 3:
			spec.NotAfter = time.Now().Add(10 * time.Minute)
			want = append(want, "expires_soon")
		}
		if has(tlsconfig.CodeUntrusted) {
			issuer = other
		}
		if has(tlsconfig.CodeIdentity) {
			spec.DNS = []string{"mcp-tax"}
		}
		config := strict(ca, issuer.Issue(spec))
		config.NextProtos = nil
		switch rapid.IntRange(0, 3).Draw(t, "clients") {
		case 1:
			config.ClientAuth = rapid.SampledFrom([]tls.ClientAuthType{tls.NoClientCert, tls.RequestClientCert, tls.VerifyClientCertIfGiven}).Draw(t, "asks")
			want = append(want, "no_client_certificate")
		case 2:
			config.ClientAuth = tls.RequireAnyClientCert
			want = append(want, "foreign_client")
		case 3:
			config.ClientCAs = x509.NewCertPool()
			config.ClientCAs.AddCert(other.Cert)
			want = append(want, "client_refused")
		}
		if has(tlsconfig.CodeOldTLS) {
			config.MinVersion = rapid.SampledFrom([]uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12}).Draw(t, "lowest")
			config.MaxVersion = rapid.SampledFrom([]uint16{tls.VersionTLS12, tls.VersionTLS13}).Draw(t, "highest")
		}
		protocol := rapid.SampledFrom([]tlsconfig.Protocol{tlsconfig.ProtocolHTTPS, tlsconfig.ProtocolRedis, tlsconfig.ProtocolMongoDB}).Draw(t, "protocol")

		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				answer(conn, config, clear, protocol)
				conn.Close()
			}
		})
		r, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: l.Addr().String(), Protocol: protocol, Identity: []string{"mcp-hr"}}, tlsconfig.ProbeConfig{Client: client})
		l.Close()
		serving.Wait()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(codes(r))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q: %+v", got, want, r.Findings)
		}
		if r.Accepted == slices.Contains(want, "client_refused") {
			t.Fatalf("accepted is %t", r.Accepted)
		}
	})
}

// answer serves one connection, in the clear too if it may.
func answer(conn net.Conn, config *tls.Config, clear bool, protocol tlsconfig.Protocol) {
	r := bufio.NewReader(conn)
	over := net.Conn(peeked{conn, r})
	if first, err := r.Peek(1); err != nil || first[0] == 22 || !clear {
		over = tls.Server(over, config)
	}
	switch protocol {
	case tlsconfig.ProtocolMongoDB:
		mongo(over)
	case tlsconfig.ProtocolRedis:
		if _, err := io.ReadFull(over, make([]byte, 14)); err == nil {
			io.WriteString(over, "+PONG\r\n")
		}
	default:
		if _, err := http.ReadRequest(bufio.NewReader(over)); err == nil {
			io.WriteString(over, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		}
	}
}
