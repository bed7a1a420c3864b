package tlsmcp_test

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsmcp"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A site has one authority, and certificates from it.
type site struct {
	t  testing.TB
	ca *testpki.CA
}

func newSite(t testing.TB) site { return site{t: t, ca: testpki.NewCA("root")} }

func (s site) material(names ...string) *tlsconfig.Material {
	s.t.Helper()
	p := s.ca.Issue(testpki.Spec{DNS: names})
	m, err := tlsconfig.NewMaterial(p.Key, p.Chain, []*x509.Certificate{s.ca.Cert})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s site) identity(names ...string) *tlsconfig.Live {
	s.t.Helper()
	l := new(tlsconfig.Live)
	l.Publish(s.material(names...))
	return l
}

// serve runs the handler as mcp-hr until the test ends, for everybody with a
// certificate, and returns its address.
func (s site) serve(handler http.Handler, id tlsconfig.Identity) string {
	s.t.Helper()
	url, _ := s.serveDrained(handler, tlsconfig.Config{}, id)
	return url
}

func (s site) serveDrained(handler http.Handler, c tlsconfig.Config, id tlsconfig.Identity) (string, *tlsconfig.Drainer) {
	s.t.Helper()
	srv := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	drainer, err := c.WrapServer(srv, id, tlsconfig.AllowTrusted())
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() {
		srv.Close()
		<-done
		drainer.Close()
	})
	return "https://" + l.Addr().String(), drainer
}

// as returns the HTTP client of a service.
func (s site) as(id tlsconfig.Identity) *http.Client {
	transport := tlsconfig.NewTransport(nil, id, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	s.t.Cleanup(transport.Close)
	return &http.Client{Transport: transport}
}

// connect opens an MCP session.
func connect(t testing.TB, client *http.Client, url string) *mcp.ClientSession {
	t.Helper()
	c := mcp.NewClient(&mcp.Implementation{Name: "gateway", Version: "1"}, nil)
	session, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: client}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// call calls a tool and returns the text of its result.
func call(ctx context.Context, s *mcp.ClientSession, tool string) (text string, isError bool, err error) {
	result, err := s.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: map[string]any{}})
	if err != nil {
		return "", false, err
	}
	for _, c := range result.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			text += t.Text
		}
	}
	return text, result.IsError, nil
}

type nothing struct{}

// whoami is an MCP server with tools that say who calls: whoami by tlsmcp,
// creator by the context, as people write it who know net/http.
func whoami() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "mcp-hr", Version: "1"}, nil)
	answer := func(text string) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
	}
	mcp.AddTool(server, &mcp.Tool{Name: "whoami"}, func(_ context.Context, r *mcp.CallToolRequest, _ nothing) (*mcp.CallToolResult, any, error) {
		peer, _ := tlsmcp.Peer(r)
		return answer(peer.String())
	})
	mcp.AddTool(server, &mcp.Tool{Name: "creator"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ nothing) (*mcp.CallToolResult, any, error) {
		peer, _ := ctx.Value(naiveKey{}).(tlsconfig.PeerIdentity)
		return answer(peer.String())
	})
	return server
}

type naiveKey struct{}

// naive hands the peer on in the context of the request.
func naive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, ok := tlsconfig.Peer(r)
		if !ok {
			http.Error(w, "no peer", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), naiveKey{}, peer)))
	})
}

// handler is the SDK's, with sessions.
func handler(server *mcp.Server) http.Handler {
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{SessionTimeout: time.Minute})
}

// A journal keeps the events.
type journal struct {
	mu     sync.Mutex
	events []auditlog.Event
}

func (j *journal) Append(ctx context.Context, e auditlog.Event) error {
	if ctx.Err() != nil { // as an audit log does
		return ctx.Err()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
	return nil
}
