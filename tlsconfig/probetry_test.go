package tlsconfig_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestTry(t *testing.T) {
	root, other := testpki.NewCA("root"), testpki.NewCA("other")
	pair, client := root.Issue(serverSpec), root.Issue(clientSpec)
	own, _ := serve(t, tlsconfig.Config{}, tlsconfig.Static(material(t, pair, root)), tlsconfig.AllowDNS("mcp-gateway"), nil)
	with := func(change func(*tls.Config)) string {
		c := strict(root, pair)
		change(c)
		return website(t, c, nil, nil)
	}
	unnamed := root.Issue(testpki.Spec{DNS: []string{"mcp-ui"}})
	tests := []struct {
		name   string
		addr   string
		client testpki.Pair
		of     *testpki.CA
		want   tlsconfig.TrialResult
		why    string
	}{
		{"accepted", website(t, strict(root, pair), nil, nil), client, root, tlsconfig.TrialAccepted, "it answers"},
		{"accepted by ours", strings.TrimPrefix(own, "https://"), client, root, tlsconfig.TrialAccepted, "it answers"},
		{"another authority's", website(t, strict(root, pair), nil, nil), other.Issue(clientSpec), other, tlsconfig.TrialUntrusted, "unknown certificate authority"},
		{"another authority's, at ours", strings.TrimPrefix(own, "https://"), other.Issue(clientSpec), other, tlsconfig.TrialRefused, "bad certificate"},
		{"not allowed at ours", strings.TrimPrefix(own, "https://"), unnamed, root, tlsconfig.TrialRefused, "bad certificate"},
		{"in words", with(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }), client, root, tlsconfig.TrialAccepted, "200"},
		{"that asks for none", with(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), client, root, tlsconfig.TrialOpen, "200"},
		{"in the clear", website(t, nil, nil, nil), client, root, tlsconfig.TrialUnclear, "not TLS"},
		{"that hangs", accept(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), client, root, tlsconfig.TrialUnclear, "no answer in time"},
		{"that hangs after the handshake", accept(t, func(conn net.Conn) {
			if secure := tls.Server(conn, strict(root, pair)); secure.Handshake() == nil {
				io.Copy(io.Discard, secure)
			}
		}), client, root, tlsconfig.TrialUnclear, "no answer in time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			trial, err := tlsconfig.Try(t.Context(), tlsconfig.Endpoint{Addr: tt.addr, Protocol: tlsconfig.ProtocolHTTPS, Identity: []string{"mcp-hr"}},
				tlsconfig.ProbeConfig{Client: tlsconfig.Static(material(t, tt.client, tt.of)), Timeout: 3 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if trial.Result != tt.want || !strings.Contains(trial.Why, tt.why) {
				t.Errorf("got %+v, want %s: %s", trial, tt.want, tt.why)
			}
			if trial.Result != tlsconfig.TrialUnclear && (len(trial.Chain) != 1 || !trial.Chain[0].Equal(pair.Leaf())) {
				t.Errorf("it showed %v", trial.Chain)
			}
		})
	}
}

func TestTryCannot(t *testing.T) {
	ca := testpki.NewCA("root")
	c := tlsconfig.ProbeConfig{Client: tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))}
	if _, err := tlsconfig.Try(t.Context(), tlsconfig.Endpoint{Addr: "127.0.0.1:1"}, tlsconfig.ProbeConfig{}); err == nil || !strings.Contains(err.Error(), "Client is nil") {
		t.Errorf("without a client: %v", err)
	}
	if _, err := tlsconfig.Try(t.Context(), tlsconfig.Endpoint{Addr: "mcp-hr"}, c); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("without a port: %v", err)
	}
	if _, err := tlsconfig.Try(t.Context(), tlsconfig.Endpoint{Addr: "127.0.0.1:1"}, c); !errors.Is(err, tlsconfig.ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	addr := website(t, strict(ca, ca.Issue(serverSpec)), http.NotFound, nil)
	if _, err := tlsconfig.Try(ctx, tlsconfig.Endpoint{Addr: addr}, c); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}
