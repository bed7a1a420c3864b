package tlsgrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsgrpc"
)

// sees makes a service that answers with an error that names the peer.
func sees() *service {
	return &service{check: func(ctx context.Context, _ *health.HealthCheckRequest) error {
		p, ok := tlsgrpc.PeerFromContext(ctx)
		if !ok {
			return status.Error(codes.Aborted, "nobody")
		}
		return status.Error(codes.Aborted, p.String())
	}}
}

func TestPeer(t *testing.T) {
	ca := testpki.NewCA("ours")
	client := tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))
	addr, _ := protect(t, sees(), tlsconfig.Config{}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted())
	if err := call(connect(t, addr, tlsconfig.Config{}, client, tlsconfig.AllowTrusted())); status.Convert(err).Message() != "spiffe://tamshai.example/mcp-gateway" {
		t.Error(err)
	}
	// What came in plaintext, or from nowhere, has no peer.
	cc := dial(t, serve(t, sees()), insecure.NewCredentials())
	if err := call(cc); status.Convert(err).Message() != "nobody" {
		t.Error(err)
	}
	if _, ok := tlsgrpc.PeerFromContext(t.Context()); ok {
		t.Error("a peer from nowhere")
	}
	// A client may ask too.
	var p peer.Peer
	via := connect(t, addr, tlsconfig.Config{}, client, tlsconfig.AllowTrusted())
	health.NewHealthClient(via).Check(t.Context(), &health.HealthCheckRequest{}, grpc.Peer(&p))
	info, ok := p.AuthInfo.(tlsgrpc.AuthInfo)
	if !ok || info.Conn.Peer().String() != "spiffe://tamshai.example/mcp-hr" || info.AuthType() != "tls" {
		t.Errorf("%v", p.AuthInfo)
	}
}

func TestBadPeers(t *testing.T) {
	ca, other := testpki.NewCA("ours"), testpki.NewCA("another domain")
	server := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	client := tlsconfig.Static(material(t, ca.Issue(clientSpec), ca))
	var s service
	addr, _ := protect(t, &s, tlsconfig.Config{}, server, tlsconfig.AllowDNS("mcp-gateway"))
	spec := clientSpec
	spec.DNS = []string{"mcp-finance"}
	for name, cc := range map[string]grpc.ClientConnInterface{
		"plaintext":      dial(t, addr, insecure.NewCredentials()),
		"another domain": dial(t, addr, plain(other.Issue(clientSpec))),
		"self-signed":    dial(t, addr, plain(testpki.SelfSigned(clientSpec))),
		"another name":   dial(t, addr, plain(ca.Issue(spec))),
	} {
		if err := call(cc); !unavailable(err) {
			t.Errorf("the server, %s: %v", name, err)
		}
	}
	for name, tt := range map[string]struct {
		creds     grpc.ServerOption
		authorize tlsconfig.Authorizer
		says      string
	}{
		"plaintext":      {grpc.Creds(insecure.NewCredentials()), tlsconfig.AllowTrusted(), "first record does not look like a TLS handshake"},
		"another domain": {grpc.Creds(plain(other.Issue(serverSpec))), tlsconfig.AllowTrusted(), "no authority in the trust bundle"},
		"another name":   {grpc.Creds(plain(ca.Issue(clientSpec))), tlsconfig.AllowTrusted(), "it is not the server"},
		"no authorizer":  {grpc.Creds(plain(ca.Issue(serverSpec))), nil, "no authorizer was given"},
	} {
		err := call(connect(t, serve(t, &s, tt.creds), tlsconfig.Config{}, client, tt.authorize))
		if !unavailable(err) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("the client, %s: %v", name, err)
		}
	}
	if n := s.reached.Load(); n != 0 {
		t.Errorf("%d RPCs reached the service", n)
	}
}

// What is used on the wrong side, or is not gRPC at all.
func TestMisuse(t *testing.T) {
	ca := testpki.NewCA("ours")
	identity := tlsconfig.Static(material(t, ca.Issue(serverSpec), ca))
	server := tlsgrpc.ServerCredentials(tlsconfig.Config{}, identity, tlsconfig.AllowTrusted())
	defer server.Close()
	client := tlsgrpc.ClientCredentials(tlsconfig.Config{}, identity, "", tlsconfig.AllowTrusted())
	defer client.Close()
	here, there := net.Pipe()
	if _, _, err := client.ServerHandshake(here); err == nil || !strings.Contains(err.Error(), "use ServerCredentials") {
		t.Error(err)
	}
	if _, _, err := server.ClientHandshake(t.Context(), "x", there); err == nil || !strings.Contains(err.Error(), "use ClientCredentials") {
		t.Error(err)
	}
	if _, err := here.Read(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Error("the connection was left open:", err)
	}
	if err := client.OverrideServerName("x"); err == nil {
		t.Error("the name was changed")
	}
	if _, err := tlsgrpc.NewClient("127.0.0.1:1", tlsgrpc.ClientConfig{}); err == nil || !strings.Contains(err.Error(), "Identity") {
		t.Error(err)
	}
	if _, err := tlsgrpc.NewClient("unknown-scheme://\x00", tlsgrpc.ClientConfig{Identity: identity}); err == nil {
		t.Error("a target that does not parse")
	}

	// A peer that negotiates no HTTP/2.
	speaker := tlsconfig.Config{}.ClientConns(identity, tlsconfig.AllowTrusted())
	defer speaker.Close()
	here, there = net.Pipe()
	go func() {
		if c, err := speaker.Handshake(t.Context(), here, "mcp-hr"); err == nil {
			c.Read(make([]byte, 1))
		}
	}()
	if _, _, err := server.Clone().ServerHandshake(there); err == nil || !strings.Contains(err.Error(), "does not speak HTTP/2") {
		t.Error(err)
	}
	there.Close()
}

// A rotation of the client: its connection goes by itself, and the streams under
// way end as they would have.
func TestClientMoves(t *testing.T) {
	ca := testpki.NewCA("ours")
	first, second := ca.Issue(clientSpec), ca.Issue(clientSpec)
	var shown sync.Map
	s := &service{more: make(chan struct{}), check: func(ctx context.Context, _ *health.HealthCheckRequest) error {
		p, _ := tlsgrpc.PeerFromContext(ctx)
		shown.Store(p.Certificate.SerialNumber.String(), true)
		return nil
	}}
	addr, creds := protect(t, s, tlsconfig.Config{DrainTimeout: time.Hour}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted())
	identity := live(material(t, first, ca))
	client := connect(t, addr, tlsconfig.Config{DrainTimeout: time.Hour}, identity, tlsconfig.AllowTrusted())
	if err := call(client); err != nil {
		t.Fatal(err)
	}
	stream := watch(t, client)
	identity.Publish(material(t, second, ca))
	if err := call(client); err != nil {
		t.Fatal(err)
	}
	if _, ok := shown.Load(second.Leaf().SerialNumber.String()); !ok {
		t.Error("the RPC after the rotation showed the old certificate")
	}
	if client.Old() != 1 {
		t.Errorf("%d connections are on the old generation, want the stream's", client.Old())
	}
	s.more <- struct{}{}
	if _, err := stream.Recv(); err != nil {
		t.Error("the stream did not go on:", err)
	}
	close(s.more)
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error("the stream did not end well:", err)
	}
	wait(t, "the old connection goes", func() bool { return client.Old() == 0 })
	// Without an RPC, too.
	identity.Publish(material(t, first, ca))
	wait(t, "an idle connection goes", func() bool { return client.Old() == 0 })
	if creds.Old() != 0 {
		t.Error("the server's generation did not change")
	}
}

// A rotation of the server: gRPC asks a client that is not ours to come again.
// A stream that is still there at the deadline ends.
func TestServerDrains(t *testing.T) {
	ca := testpki.NewCA("ours")
	var s service
	identity := live(material(t, ca.Issue(serverSpec), ca))
	addr, creds := protect(t, &s, tlsconfig.Config{DrainTimeout: 4 * time.Second}, identity, tlsconfig.AllowTrusted())
	cc := dial(t, addr, plain(ca.Issue(clientSpec)))
	stream := watch(t, cc)
	identity.Publish(material(t, ca.Issue(serverSpec), ca))
	if creds.Old() != 1 {
		t.Errorf("%d connections are on the old generation", creds.Old())
	}
	var failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := call(cc); err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
			}
		})
	}
	wait(t, "the old connection goes", func() bool { return creds.Old() == 0 })
	if _, err := stream.Recv(); !unavailable(err) {
		t.Error("the stream ended with", err)
	}
	stop()
	all.Wait()
}

// RPCs after Close fail, and those under way end.
func TestClose(t *testing.T) {
	ca := testpki.NewCA("ours")
	var s service
	addr, _ := protect(t, &s, tlsconfig.Config{}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted())
	client := connect(t, addr, tlsconfig.Config{}, tlsconfig.Static(material(t, ca.Issue(clientSpec), ca)), tlsconfig.AllowTrusted())
	stream := watch(t, client)
	client.Close()
	client.Close()
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream outlives Close")
	}
	if err := call(client); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	if _, err := health.NewHealthClient(client).Watch(t.Context(), &health.HealthCheckRequest{}); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
}
