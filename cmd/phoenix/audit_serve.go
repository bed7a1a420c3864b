package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/audithttp"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/sdnotify"
	"github.com/tamshai/phoenix/internal/unixsock"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

func auditServeCommand() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "take events from other programs over HTTP, and answer when they are on the disk",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit serve DIR --listen unix:/run/phoenix/audit.sock --client service=mcp-hr,uid=10001
   phoenix audit serve DIR --listen 127.0.0.1:8092 --signing-key audit.key --anchor /mnt/anchors \
      --client service=mcp-gateway,environment=stage,token-file=gateway.token \
      --client service=kong,token-file=kong.token,kong-user=user_id

A program posts to one of these, with "Authorization: Bearer TOKEN":
   /v1/events    events in JSON, as phoenix audit append takes them
   /v1/gateway   what the AI gateway posts: AUDIT_LOG_ENDPOINT=http://127.0.0.1:8092/v1/gateway/TOKEN
   /v1/kong      what Kong's http-log plugin posts: http_endpoint: http://x:TOKEN@127.0.0.1:8092/v1/kong
The token may also be the last element of the path, or a password. On a unix
socket a client may instead be known by its user (uid), of which the kernel
tells; any user may connect there.

A body is one event, an array, or as application/x-ndjson one on each line. The
answer is JSON {ids, rejected: [{index, error}], error} with status 200 (all
are kept), 207 (some are no events), 400 or 413 (none is), 401 (nobody's
token), 503 (send it again later). GET /healthz and /metrics need no token.

A client is service=NAME, and uid=NUMBER (may be repeated) or token-file=FILE
(16 bytes or more, such as: openssl rand -hex 32), and perhaps environment=NAME
and kong-user=FIELD, the custom field of Kong's entries that has the user. The
service and environment of an event are those of its client. With --sensitive
user, name username and message as well: the gateway has the name there too.

With --vault-signer it boots as a service does, from the environment: VAULT_ADDR,
the RoleID, the file with the SecretID. It takes events meanwhile, and while
Vault is away; they are signed when there is a session.`,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "listen", Usage: "`ADDRESS`: unix:PATH, or HOST:PORT; may be repeated", Value: []string{"127.0.0.1:8092"}},
			&cli.StringSliceFlag{Name: "client", Usage: "who may record: `KEY=VALUE,…`, see above; may be repeated", Config: cli.StringConfig{TrimSpace: true}},
			&cli.StringFlag{Name: "tls-cert", Usage: "serve TLS with the certificate in `FILE`", TakesFile: true},
			&cli.StringFlag{Name: "tls-key", Usage: "and its key in `FILE`", TakesFile: true},
			&cli.BoolFlag{Name: "plaintext", Usage: "listen without TLS at an address that is not loopback"},
			&cli.StringFlag{Name: "vault-signer", Usage: "sign with the key `REF` in Vault, mount/sign/SERVICE, as that service"},
		}, writerFlags()...),
		DisableSliceFlagSeparator: true, // a client has commas in it
		Action:                    auditServe,
	}
}

func auditServe(ctx context.Context, cmd *cli.Command) (err error) {
	dir, err := auditDir(cmd, 0)
	if err != nil {
		return err
	}
	clients, err := auditClients(cmd.StringSlice("client"))
	if err != nil {
		return err
	}
	cert, key := cmd.String("tls-cert"), cmd.String("tls-key")
	if (cert == "") != (key == "") {
		return usagef("--tls-cert and --tls-key go together")
	}
	addresses := cmd.StringSlice("listen")
	for _, address := range addresses {
		if strings.HasPrefix(address, "unix:") {
			continue
		}
		if err := checkAddress(address); err != nil {
			return err
		}
		if cert == "" && !cmd.Bool("plaintext") && !isLoopback(address) {
			return usagef("--listen %s is not loopback, and without TLS others could read tokens and events; give --tls-cert and --tls-key, or --plaintext if the network is yours alone", address)
		}
	}
	ref := cmd.String("vault-signer")
	service := ref[strings.LastIndex(ref, "/")+1:]
	switch _, _, err := vault.SplitSigner(ref); {
	case ref != "" && err != nil:
		return usagef("--vault-signer: %s", strings.TrimPrefix(err.Error(), "vault: "))
	case ref != "" && cmd.String("signing-key") != "":
		return usagef("--signing-key and --vault-signer are two keys; give one")
	}
	log, signer, err := openLog(ctx, cmd, dir)
	if err != nil {
		return err
	}
	// What is queued, the last checkpoint and its anchor have ten seconds.
	defer func() { err = errors.Join(err, log.Close(context.WithoutCancel(ctx))) }()
	if ref == "" {
		if err := log.Attach(signer); err != nil {
			return err
		}
	} else {
		signing := signFromVault(ctx, log, service, ref)
		defer func() { err = errors.Join(err, signing()) }()
	}
	server, err := audithttp.IngestServer(audithttp.IngestConfig{Log: log, Clients: clients, Logger: warnings(os.Stderr)})
	if err != nil {
		return usagef("%s", strings.Replace(strings.TrimPrefix(err.Error(), "audithttp: "), "no UIDs and no Token", "neither uid nor token-file", 1))
	}
	var listeners []net.Listener
	for _, address := range addresses {
		l, err := listenAt(ctx, address)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return usagef("--listen: %v", err)
		}
		listeners = append(listeners, l)
	}
	return serveAll(ctx, server, listeners, cert, key)
}

// signFromVault boots as a service and has its key sign log from then on. The
// function that it returns ends that; it is to be called when ctx has ended,
// or before.
func signFromVault(ctx context.Context, log *auditlog.Log, service, ref string) (end func() error) {
	booting, cancel := context.WithCancel(ctx)
	type booted struct {
		s   *bootstrap.Session
		err error
	}
	done := make(chan booted, 1)
	go func() {
		s, err := bootstrap.Start(booting, bootstrap.Config{Service: service, Signer: ref, Audit: log, Logger: warnings(os.Stderr)})
		if err == nil {
			err = log.Attach(s.Signer())
		}
		if err != nil && booting.Err() == nil {
			fmt.Fprintf(os.Stderr, "phoenix: the log is not signed: %v\n", err)
		}
		done <- booted{s, err}
	}()
	return func() error {
		cancel()
		b := <-done
		if b.s == nil {
			return nil // it has been said
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return b.s.Close(closing)
	}
}

// serveAll serves until ctx ends, and then answers what has been asked.
func serveAll(ctx context.Context, server *http.Server, listeners []net.Listener, cert, key string) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(listeners))
	var running sync.WaitGroup
	for i, l := range listeners {
		fmt.Fprintf(os.Stderr, "phoenix: listening at %s\n", l.Addr())
		running.Go(func() {
			defer stop()
			if l.Addr().Network() == "tcp" && cert != "" {
				errs[i] = server.ServeTLS(l, cert, key)
			} else {
				errs[i] = server.Serve(l)
			}
			if errors.Is(errs[i], http.ErrServerClosed) {
				errs[i] = nil
			}
		})
	}
	_ = sdnotify.Notify(sdnotify.Ready) // a supervisor that is not there misses nothing
	<-serving.Done()
	_ = sdnotify.Notify(sdnotify.Stopping)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	err := server.Shutdown(limit)
	running.Wait()
	return errors.Join(append(errs, err)...)
}

// listenAt listens at unix:PATH or HOST:PORT. A socket that a process has left
// behind is removed; one that is in use is not.
func listenAt(ctx context.Context, address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	}
	if err := unixsock.RemoveStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	// Who may record is decided by the user who connects, or by a token.
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // G302: see above
		l.Close()
		return nil, err
	}
	return l, nil
}

func auditClients(specs []string) ([]audithttp.Client, error) {
	if len(specs) == 0 {
		return nil, usagef("--client is missing; without it nobody may record anything: --client service=kong,token-file=kong.token")
	}
	var out []audithttp.Client
	for _, spec := range specs {
		var c audithttp.Client
		for part := range strings.SplitSeq(spec, ",") {
			name, value, ok := strings.Cut(part, "=")
			if !ok || value == "" {
				return nil, usagef("--client %s: %q is not KEY=VALUE", spec, part)
			}
			switch name {
			case "service":
				c.Service = value
			case "environment":
				c.Environment = value
			case "kong-user":
				c.KongUser = value
			case "uid":
				uid, err := strconv.ParseUint(value, 10, 32)
				if err != nil {
					return nil, usagef("--client %s: uid is the number of a user", spec)
				}
				c.UIDs = append(c.UIDs, uint32(uid))
			case "token-file":
				data, err := os.ReadFile(value)
				if err != nil {
					return nil, usagef("--client %s: %v", spec, err)
				}
				if info, err := os.Stat(value); err == nil && info.Mode().Perm()&0o007 != 0 {
					fmt.Fprintf(os.Stderr, "phoenix: everybody on this host can read %s; chmod o= %s\n", value, value)
				}
				c.Token = secrets.New(bytes.TrimSpace(data))
				clear(data)
			default:
				return nil, usagef("--client %s: there is no %q; the keys are service, environment, uid, token-file and kong-user", spec, name)
			}
		}
		out = append(out, c)
	}
	return out, nil
}
