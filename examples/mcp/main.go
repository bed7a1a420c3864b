// Command mcp runs a gateway and two services with the official Go SDK of the
// Model Context Protocol, each booted by Phoenix from a one-use SecretID, and
// every call over mutual TLS, authorized by who calls.
//
//	go run ./examples/mcp          # on the double of Vault
//	go run ./examples/mcp -real    # on real Vault; "make servers" builds it
//
// Read service.go: it is what a service of yours would have in its main.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/tlsconfig"
)

func main() {
	realVault := flag.Bool("real", false, "use real Vault instead of the double")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := show(ctx, os.Stdout, siteConfig{real: *realVault, life: 8 * time.Second}); err != nil {
		fmt.Fprintln(os.Stderr, "mcp:", err)
		os.Exit(1)
	}
}

// show plays the example.
func show(ctx context.Context, out io.Writer, cfg siteConfig) (err error) {
	fmt.Fprintln(out, "An empty Vault gets two authorities, and a role for each service with its name and no other.")
	s, err := build(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.run(ctx, hr, finance, gateway); err != nil {
		return err
	}
	ui, err := s.join(ctx, "mcp-ui")
	if err != nil {
		return err
	}
	defer ui.close()
	slip, err := useTool(ctx, ui.session, "payslip", person{Name: "Ada"})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "mcp-ui asks mcp-gateway for a payslip, which asks mcp-hr and mcp-finance:\n  %s\n", slip)

	thief, err := s.join(ctx, "mcp-finance")
	if err != nil {
		return err
	}
	defer thief.close()
	status, err := thief.steal(ctx, ui.session.ID())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "mcp-finance, which may connect, uses the session of mcp-ui:\n  %s\n", status)
	if _, err = useTool(ctx, thief.session, "payslip", person{Name: "Ada"}); err == nil {
		return errors.New("mcp-finance got a payslip")
	}
	fmt.Fprintf(out, "and asks in a session of its own:\n  %v\n", err)

	calls, seen, err := ui.load(ctx, 2)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Certificates live for %s here. mcp-ui calls on while all are renewed:\n  %d calls, %d certificates of the gateway, 0 failed\n", cfg.life, calls, seen)
	return nil
}

// A user is a service that only calls, with one session at the gateway.
type user struct {
	session *mcp.ClientSession
	client  *http.Client
	close   func()

	mu   sync.Mutex
	seen map[[32]byte]bool // certificates of the gateway
}

const gatewayURL = "https://mcp-gateway"

// join boots a service and opens a session at the gateway.
func (s *site) join(ctx context.Context, name string) (*user, error) {
	boot, err := s.boot(ctx, name)
	if err != nil {
		return nil, err
	}
	phoenix, err := start(ctx, name, environment{boot: boot, life: s.life, log: s.log, audit: s.audit})
	if err != nil {
		return nil, err
	}
	u := &user{seen: map[[32]byte]bool{}}
	allow := tlsconfig.All(tlsconfig.AllowDNS("mcp-gateway"), func(p *tlsconfig.PeerIdentity) error {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.seen[p.Fingerprint] = true
		return nil
	})
	transport := tlsconfig.NewTransport(&http.Transport{DialContext: s.dial}, phoenix.Identity(), "", allow)
	u.client = &http.Client{Transport: transport}
	end := func() {
		transport.Close()
		_ = phoenix.Close(context.WithoutCancel(ctx)) // Vault goes, too
	}
	client := mcp.NewClient(&mcp.Implementation{Name: name, Version: "1"}, nil)
	u.session, err = client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: gatewayURL, HTTPClient: u.client}, nil)
	if err != nil {
		end()
		return nil, err
	}
	u.close = func() {
		_ = u.session.Close() // the gateway may be gone
		end()
	}
	return u, nil
}

// steal calls a tool in the session of somebody else.
func (u *user) steal(ctx context.Context, session string) (status string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, gatewayURL,
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"payslip","arguments":{"name":"Ada"}}}`))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Mcp-Session-Id", session)
	resp, err := u.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		return "", fmt.Errorf("the session was not refused: %s", resp.Status)
	}
	return resp.Status, nil
}

// load calls until the gateway has shown so many certificates more.
func (u *user) load(ctx context.Context, more int) (calls, seen int, err error) {
	count := func() int {
		u.mu.Lock()
		defer u.mu.Unlock()
		return len(u.seen)
	}
	for want := count() + more; count() < want; calls++ {
		if _, err := useTool(ctx, u.session, "payslip", person{Name: "Grace"}); err != nil {
			return calls, count(), err
		}
	}
	return calls, count(), nil
}
