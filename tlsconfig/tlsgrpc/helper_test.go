package tlsgrpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsgrpc"
)

func TestMain(m *testing.M) { leak.Main(m) }

var (
	serverSpec = testpki.Spec{DNS: []string{"mcp-hr"}, URI: []string{"spiffe://tamshai.example/mcp-hr"}}
	clientSpec = testpki.Spec{DNS: []string{"mcp-gateway"}, URI: []string{"spiffe://tamshai.example/mcp-gateway"}}
)

func material(t testing.TB, p testpki.Pair, trusted ...*testpki.CA) *tlsconfig.Material {
	t.Helper()
	var bundle []*x509.Certificate
	for _, ca := range trusted {
		bundle = append(bundle, ca.Cert)
	}
	m, err := tlsconfig.NewMaterial(p.Key, p.Chain, bundle)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func live(m *tlsconfig.Material) *tlsconfig.Live {
	l := new(tlsconfig.Live)
	l.Publish(m)
	return l
}

// plain is what people write by hand: no verification to speak of, and a
// session cache, so that what is refused is refused by the other side.
func plain(p testpki.Pair) credentials.TransportCredentials {
	c := tls.Certificate{PrivateKey: p.Key}
	for _, cert := range p.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{c}, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
		ServerName: "mcp-hr", NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(8)})
}

// A service answers with a status, and counts the RPCs that reached it. Watch
// sends an answer whenever it is told to.
type service struct {
	health.UnimplementedHealthServer
	reached atomic.Int64
	more    chan struct{}
	check   func(context.Context, *health.HealthCheckRequest) error // may be nil
}

func (s *service) Check(ctx context.Context, r *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	s.reached.Add(1)
	if s.check != nil {
		if err := s.check(ctx, r); err != nil {
			return nil, err
		}
	}
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
}

func (s *service) Watch(_ *health.HealthCheckRequest, stream grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
	s.reached.Add(1)
	for {
		if err := stream.Send(&health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case _, ok := <-s.more:
			if !ok {
				return nil
			}
		}
	}
}

// serve runs the service until the test ends.
func serve(t testing.TB, s *service, options ...grpc.ServerOption) string {
	t.Helper()
	if s.more == nil {
		s.more = make(chan struct{})
	}
	srv := grpc.NewServer(options...)
	health.RegisterHealthServer(srv, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return l.Addr().String()
}

// protect is serve with ServerCredentials.
func protect(t testing.TB, s *service, c tlsconfig.Config, id tlsconfig.Identity, a tlsconfig.Authorizer) (string, *tlsgrpc.Credentials) {
	t.Helper()
	creds := tlsgrpc.ServerCredentials(c, id, a)
	t.Cleanup(creds.Close)
	return serve(t, s, creds.ServerOptions()...), creds
}

// dial returns a connection as people write it by hand.
func dial(t testing.TB, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// connect returns a Client that expects the server mcp-hr.
func connect(t testing.TB, addr string, c tlsconfig.Config, id tlsconfig.Identity, a tlsconfig.Authorizer) *tlsgrpc.Client {
	t.Helper()
	client, err := tlsgrpc.NewClient(addr, tlsgrpc.ClientConfig{TLS: c, Identity: id, Authorize: a, ServerName: "mcp-hr"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func call(cc grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := health.NewHealthClient(cc).Check(ctx, &health.HealthCheckRequest{})
	return err
}

// watch begins a stream and waits for its first answer.
func watch(t testing.TB, cc grpc.ClientConnInterface) grpc.ServerStreamingClient[health.HealthCheckResponse] {
	t.Helper()
	stream, err := health.NewHealthClient(cc).Watch(t.Context(), &health.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// unavailable says whether an RPC failed as one does whose connection is not to
// be had.
func unavailable(err error) bool { return status.Code(err) == codes.Unavailable }

// patience is for what takes milliseconds on a machine that does nothing else.
const patience = 5 * time.Minute

// wait lets other goroutines go on until is says yes. How long it takes is not
// what the tests look at.
func wait(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

// A gate is an authorizer that can be told to deny.
type gate struct{ denies atomic.Bool }

func (g *gate) authorize(*tlsconfig.PeerIdentity) error {
	if g.denies.Load() {
		return errors.New("denied for the test")
	}
	return nil
}
