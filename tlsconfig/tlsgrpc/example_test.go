package tlsgrpc_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"

	"google.golang.org/grpc"
	health "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsgrpc"
)

// In a service, identity is what bootstrap.Session or tlsconfig.OpenFiles gives.
func Example() {
	ca := testpki.NewCA("root")
	identity := func(name string) tlsconfig.Identity {
		p := ca.Issue(testpki.Spec{DNS: []string{name}})
		m, err := tlsconfig.NewMaterial(p.Key, p.Chain, []*x509.Certificate{ca.Cert})
		if err != nil {
			panic(err)
		}
		return tlsconfig.Static(m)
	}

	// The server.
	creds := tlsgrpc.ServerCredentials(tlsconfig.Config{}, identity("mcp-hr"), tlsconfig.AllowDNS("mcp-gateway"))
	defer creds.Close()
	srv := grpc.NewServer(creds.ServerOptions()...)
	health.RegisterHealthServer(srv, greeter{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go srv.Serve(l)
	defer srv.Stop()

	// The client.
	client, err := tlsgrpc.NewClient(l.Addr().String(), tlsgrpc.ClientConfig{
		Identity: identity("mcp-gateway"), Authorize: tlsconfig.AllowDNS("mcp-hr"), ServerName: "mcp-hr"})
	if err != nil {
		panic(err)
	}
	defer client.Close()
	answer, err := health.NewHealthClient(client).Check(context.Background(), &health.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
	// Output:
	// called by mcp-gateway
	// SERVING <nil>
}

type greeter struct {
	health.UnimplementedHealthServer
}

func (greeter) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	caller, ok := tlsgrpc.PeerFromContext(ctx)
	if !ok {
		return nil, fmt.Errorf("nobody is there")
	}
	fmt.Println("called by", caller)
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
}
