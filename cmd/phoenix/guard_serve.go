package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/guard/httpguard"
)

func guardServeCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "stand between programs and a model: personal data stays here, prompts stay secret",
		Description: `Example:
   phoenix guard serve --upstream https://api.anthropic.com --prompt payroll=prompt.txt --audit-log /var/log/guard
   ANTHROPIC_BASE_URL=http://127.0.0.1:8089 node server.js

It understands the interfaces of Anthropic, OpenAI and Gemini, one of them for each
upstream. With https://api.openai.com a program has OPENAI_BASE_URL=http://127.0.0.1:8089/v1;
with https://generativelanguage.googleapis.com the base URL of its client is the address.
Requests leave with pseudonyms in place of personal data, answers come back with the values
restored, and an answer that repeats a prompt or has internal tags is stopped.
What the policy blocks is refused with 403, and what cannot be read with 400: uploads,
images, documents in base64 or at an address, texts as token numbers (LangChain's
embeddings of OpenAI send the text with check_embedding_ctx_length=False), WebSockets.

Addresses are personal data too. Those that a model should see, and those of MCP servers
that the provider is to ask, are let be by allow_domains; actions: {URL: audit} lets all.

The header ` + httpguard.SessionHeader + ` names the conversation of a request, and
` + httpguard.TurnHeader + ` its turn; set them from what was authenticated. Neither is sent on.
Without the first nothing is kept from one request to the next. A program that sends
the whole conversation each time needs no more: it is sent on as before, and the
provider's cache and the signatures of thoughts hold. One that sends only what is new
(previous_response_id), or gets answers later (batches), needs the header. What a
conversation is known by is kept for an hour after its last request.

GET /healthz is answered with 200 while it runs, and is neither sent on nor recorded.

` + policySchema,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "upstream", Usage: "the provider's `URL`", Sources: cli.EnvVars("PHOENIX_GUARD_UPSTREAM")},
			&cli.StringFlag{Name: "listen", Usage: "the `ADDRESS` to listen at", Value: "127.0.0.1:8089"},
			&cli.StringFlag{Name: "policy", Usage: "the policy `FILE`", TakesFile: true},
			&cli.StringSliceFlag{Name: "prompt", Usage: "a prompt that no answer may repeat, as `NAME=FILE`; may be repeated"},
			&cli.StringFlag{Name: "tls-cert", Usage: "serve TLS with the certificate in `FILE`", TakesFile: true},
			&cli.StringFlag{Name: "tls-key", Usage: "and its key in `FILE`", TakesFile: true},
			&cli.BoolFlag{Name: "plaintext", Usage: "listen without TLS at an address that is not loopback"},
			auditFlag(),
		},
		Action: serveGuard,
	}
}

func serveGuard(ctx context.Context, cmd *cli.Command) error {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	upstream, err := upstreamURL(cmd.String("upstream"))
	if err != nil {
		return err
	}
	cert, key := cmd.String("tls-cert"), cmd.String("tls-key")
	if (cert == "") != (key == "") {
		return usagef("--tls-cert and --tls-key go together")
	}
	if err := checkAddress(cmd.String("listen")); err != nil {
		return err
	}
	if cert == "" && !cmd.Bool("plaintext") && !isLoopback(cmd.String("listen")) {
		return usagef("--listen %s is not loopback, and without TLS others could read what users say; give --tls-cert and --tls-key, or --plaintext if the network is yours alone", cmd.String("listen"))
	}
	if cert != "" { // before anything is opened: the server would say it last
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			return usagef("--tls-cert and --tls-key: %v", err)
		}
	}
	c, err := loadPolicy(cmd.String("policy"))
	if err != nil {
		return err
	}
	for _, p := range cmd.StringSlice("prompt") {
		name, file, ok := strings.Cut(p, "=")
		if !ok || name == "" || file == "" {
			return usagef("--prompt %q; write it as NAME=FILE", p)
		}
		if err := registerPrompt(c.Output.Prompts, name, file); err != nil {
			return usagef("--prompt: %v", err)
		}
	}
	audit, err := openAudit(ctx, cmd, os.Stderr)
	if err != nil {
		return err
	}
	defer audit.Close()
	c.Audit, c.Service = audit, "guard"
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	gateway, err := httpguard.New(c)
	if err != nil {
		return err
	}

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cmd.String("listen"))
	if err != nil {
		return usagef("--listen: %v", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	server := &http.Server{
		Handler:           withHealth(gateway.Proxy(upstream, transport)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Logger.Handler(), slog.LevelWarn),
	}
	scheme := "http"
	if cert != "" {
		scheme = "https"
	}
	fmt.Fprintf(os.Stderr, "phoenix: listening at %s://%s for %s\n", scheme, listener.Addr(), upstream.Host)
	drained := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	go func() {
		<-serving.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		drained <- server.Shutdown(limit)
	}()
	if cert != "" {
		err = server.ServeTLS(listener, cert, key)
	} else {
		err = server.Serve(listener)
	}
	stop()
	if drainErr := <-drained; errors.Is(err, http.ErrServerClosed) {
		err = drainErr
	}
	return err
}

// withHealth answers those who ask whether it runs, at a path that no provider has.
func withHealth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
}

func upstreamURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, usagef("--upstream is missing: the provider's address, such as https://api.anthropic.com")
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usagef("--upstream is no address such as https://api.anthropic.com")
	}
	if u.Scheme == "http" && !isLoopback(u.Host) {
		return nil, usagef("--upstream %s would send requests in the clear; use https://", u.Host)
	}
	return u, nil
}

// checkAddress returns an error unless address is HOST:PORT.
func checkAddress(address string) error {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return usagef("--listen %q is no address; write it like 127.0.0.1:8089, or :8089 for every interface", address)
	}
	return nil
}

// isLoopback reports whether the host in an address is this machine alone.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
