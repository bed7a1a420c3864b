package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsmcp"
)

// A service is one MCP server: what it offers, and to whom.
type service struct {
	name    string
	callers []string // which services may connect
	// tools adds the tools, and says who may call each.
	tools func(server *mcp.Server, call caller) map[string]tlsconfig.Authorizer
	// Sessions are for what talks to a user's client. A service that is wiped
	// and rebuilt at any time is better off without.
	sessions bool
}

// environment is what differs between this example and containers: there
// VAULT_* say how to boot, and names are found by DNS.
type environment struct {
	boot   bootstrap.Config
	life   time.Duration // of certificates; zero means as the role says
	listen net.Listener
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	drain  time.Duration // zero means tlsconfig's own
	log    *slog.Logger
	audit  auditlog.Recorder
}

// run boots the service and serves until ctx ends. This is what a service's
// main does.
func (s service) run(ctx context.Context, env environment) (err error) {
	session, err := start(ctx, s.name, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()

	secure := tlsconfig.Config{DrainTimeout: env.drain, Audit: env.audit, Logger: env.log}
	call, done := calls(secure, session.Identity(), env)
	defer done()

	server := mcp.NewServer(&mcp.Implementation{Name: s.name, Version: "1"}, nil)
	rules := tlsmcp.Rules{Tools: s.tools(server, call), Audit: env.audit, Logger: env.log}
	server.AddReceivingMiddleware(rules.Middleware())
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{
		Stateless: !s.sessions, SessionTimeout: time.Hour,
		// It refuses requests for other names on loopback, where this example
		// lives. What it guards against, a web page, has no certificate.
		DisableLocalhostProtection: true,
	})

	srv := &http.Server{Handler: tlsmcp.Bind(handler), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(env.log.Handler(), slog.LevelDebug)}
	drainer, err := secure.WrapServer(srv, session.Identity(), tlsconfig.AllowDNS(s.callers...))
	if err != nil {
		return err
	}
	defer drainer.Close()
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(late) != nil { // a stream that a client keeps open
			srv.Close()
		}
	})
	if err := srv.ServeTLS(env.listen, "", ""); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	<-ended
	return nil
}

// start boots, and names the certificate that the service shows.
func start(ctx context.Context, name string, env environment) (*bootstrap.Session, error) {
	cfg := env.boot
	cfg.Service, cfg.Audit, cfg.Logger = name, env.audit, env.log
	cfg.Roots = "pki-root"
	cfg.Identity = &bootstrap.CertRequest{Role: "pki/sign/" + name, CommonName: name, DNSNames: []string{name}, TTL: env.life}
	return bootstrap.Start(ctx, cfg)
}

// A caller calls a tool of another service.
type caller func(ctx context.Context, service, tool string, arguments any) (string, error)

// calls returns a caller over mutual TLS. Each service is expected to show its
// own name, so that a request for mcp-hr never ends at another.
func calls(secure tlsconfig.Config, identity tlsconfig.Identity, env environment) (caller, func()) {
	transport := secure.NewTransport(&http.Transport{DialContext: env.dial}, identity, "", tlsconfig.AllowTrusted())
	client := mcp.NewClient(&mcp.Implementation{Name: "phoenix-example", Version: "1"}, nil)
	call := func(ctx context.Context, service, tool string, arguments any) (text string, err error) {
		// Without a session on the other side, this costs no request.
		session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
			Endpoint: "https://" + service, HTTPClient: &http.Client{Transport: transport}, DisableStandaloneSSE: true,
		}, nil)
		if err != nil {
			return "", fmt.Errorf("%s: %w", service, err)
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		return useTool(ctx, session, tool, arguments)
	}
	return call, transport.Close
}

// useTool returns the text of a tool's result.
func useTool(ctx context.Context, session *mcp.ClientSession, tool string, arguments any) (string, error) {
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: arguments})
	if err != nil {
		return "", fmt.Errorf("%s: %w", tool, err)
	}
	text := ""
	for _, part := range result.Content {
		if t, ok := part.(*mcp.TextContent); ok {
			text += t.Text
		}
	}
	if result.IsError {
		return "", fmt.Errorf("%s: %s", tool, text)
	}
	return text, nil
}
