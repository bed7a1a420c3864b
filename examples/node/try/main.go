// Command try runs the Node example on one host, and shows what the agents do.
//
//	go run ./examples/node/try          # plays it, in seconds
//	go run ./examples/node/try -stay    # and leaves it running, to be tried out
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/examples/node"
	"github.com/tamshai/phoenix/tlsconfig"
)

func main() {
	stay := flag.Bool("stay", false, "leave it running until it is interrupted")
	binary := flag.String("agent", "", "use this `binary` of phoenix-agent; without it, it is built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := show(ctx, os.Stdout, *binary, *stay); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

const certLife = 8 * time.Second

// show plays the example.
func show(ctx context.Context, out io.Writer, binary string, stay bool) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	if binary == "" {
		bin, err := os.MkdirTemp("", "phoenix-node-bin-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(bin) //nolint:errcheck // it is for this run
		binary = filepath.Join(bin, "phoenix-agent")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/tamshai/phoenix/cmd/phoenix-agent")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build phoenix-agent: %w\n%s", err, text)
		}
	}
	s, err := node.Build(ctx, node.SiteConfig{Agent: []string{binary}, Life: certLife, Say: say})
	defer func() { err = errors.Join(err, s.Close()) }()
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	say("mcp-hr, mcp-finance and mcp-gateway run: plain HTTP in Node, each behind its agent")

	gateway := "http://" + s.Fleet.Addr(node.Gateway)
	say("\nada asks the gateway who the services take her for, and hires somebody:")
	me, err := curl(ctx, http.DefaultClient, http.MethodGet, gateway+"/me", "", "Authorization: Bearer ada")
	if err != nil {
		return err
	}
	say("  %s", me)
	hire, err := curl(ctx, http.DefaultClient, http.MethodPost, gateway+"/hires", `{"name": "Grace"}`, "Authorization: Bearer ada")
	if err != nil {
		return err
	}
	say("  %s", hire)
	refused, err := curl(ctx, http.DefaultClient, http.MethodPost, gateway+"/hires", `{"name": "Grace"}`, "Authorization: Bearer tom")
	if err != nil {
		return err
	}
	say("tom, who may not:\n  %s", refused)

	say("\nEverybody else comes to mcp-hr, with a header that says ada:")
	for _, one := range []struct{ who, as string }{{"in the clear", ""}, {"over TLS without a certificate", "-"}, {"as mcp-finance", node.Finance}, {"as mcp-gateway, with a certificate, and no assertion", node.Gateway}} {
		answer, err := knock(ctx, s, one.as)
		if err != nil {
			return err
		}
		say("  %-52s %s", one.who, answer)
	}

	env, err := s.Fleet.Environment(node.HR)
	if err != nil {
		return err
	}
	say("\nThe environment of mcp-hr, which writes to PostgreSQL:")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.HasPrefix(name, "PG") {
			say("  %s=%s", name, env[name])
		} else {
			say("  %s", name)
		}
	}

	say("\n8 workers hire people, while certificates of %s and the users of the database are replaced:", certLife)
	admin, err := s.PG.Open(ctx, node.Database)
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	proof, err := s.Fleet.Prove(ctx, node.ProofConfig{
		Client: client, URL: gateway, Workers: 8, Users: 2, Certificates: 1, Admin: admin,
		HandOver: func(ctx context.Context) error { return s.Issue(ctx, node.HR, s.Fleet.SecretID(node.HR)) },
	})
	if err != nil {
		return err
	}
	say("  %d requests in %.1f s, 0 failed; %d rows, %d distinct, written by %d users of the database", proof.Hires, proof.Took.Seconds(), proof.Rows, proof.Distinct, proof.Users)
	for _, service := range []string{node.Gateway, node.HR, node.Finance} {
		say("  %-12s new certificates: %d", service, proof.Certificates[service])
	}
	if stay {
		say(`
It stays until it is interrupted. Try:
  curl -s -H 'Authorization: Bearer ada' %[1]s/me
  curl -s -H 'Authorization: Bearer ada' -d '{"name": "Edsger"}' %[1]s/hires
  curl -sk -H 'X-User-Id: ada' https://%[2]s/whoami
  curl -s --unix-socket %[3]s http://agent/edges`, gateway, s.Fleet.Addr(node.HR), filepath.Join(s.Dir, "gateway", "agent.sock"))
		<-ctx.Done()
	}
	return nil
}

// curl sends one request, and returns the answer's status and body in one line.
func curl(ctx context.Context, client *http.Client, method, url, body, header string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	name, value, _ := strings.Cut(header, ": ")
	req.Header.Set(name, value)
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(text))), err
}

func onlyHTTP1() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	return &p
}

// knock asks mcp-hr as somebody else than the gateway's program: "" in the clear,
// "-" without a certificate.
func knock(ctx context.Context, s *node.Site, as string) (string, error) {
	client, scheme := &http.Client{Transport: &http.Transport{}}, "https://"
	switch as {
	case "":
		scheme = "http://"
	case "-":
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // G402: a stranger does not care
	default:
		session, err := s.Join(ctx, as, 0)
		if err != nil {
			return "", err
		}
		defer session.Close(context.WithoutCancel(ctx)) //nolint:errcheck // Vault goes, too
		// Over HTTP/2 the client may have no word for why it was refused.
		transport := tlsconfig.NewTransport(&http.Transport{Protocols: onlyHTTP1()}, session.Identity(), node.HR, tlsconfig.AllowDNS(node.HR))
		defer transport.Close()
		client.Transport = transport
	}
	defer client.CloseIdleConnections()
	answer, err := curl(ctx, client, http.MethodGet, scheme+s.Fleet.Addr(node.HR)+"/whoami", "", "X-User-Id: ada")
	if err == nil && strings.HasPrefix(answer, "200") {
		return "", fmt.Errorf("somebody was let in: %s", answer)
	}
	if err != nil {
		answer = "refused: " + err.Error()[strings.LastIndex(err.Error(), ": ")+2:]
	}
	return answer, ctx.Err()
}
