package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// consul is as much of Consul as Vault's Consul engine asks for. It stands in
// for a database: real Vault makes, renews and revokes the leases.
type consul struct {
	log *os.File // a line for each token that is made or revoked

	mu   sync.Mutex
	made int
}

func (c *consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		c.made++
		_, _ = fmt.Fprintf(c.log, "made %d\n", c.made)
		_, _ = fmt.Fprintf(w, `{"AccessorID":"00000000-0000-0000-0000-%012d","SecretID":"s3cr3t-token-%d"}`, c.made, c.made)
	case http.MethodDelete:
		_, _ = fmt.Fprintf(c.log, "revoked %s\n", strings.TrimLeft(path.Base(r.URL.Path), "0-"))
		_, _ = io.WriteString(w, "true")
	}
}

// startConsul is the command "consul MAX": it mounts an engine at
// SERVICE-consul whose leases live for MAX, and keeps the file consul.
func startConsul(ts *testscript.TestScript, _ bool, args []string) {
	w, ctx := of(ts), context.Background()
	log, err := os.Create(ts.MkAbs("consul"))
	ts.Check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := &http.Server{Handler: &consul{log: log}}
	go func() { _ = server.Serve(l) }()
	ts.Defer(func() { _, _ = server.Close(), log.Close() })
	mount := w.service + "-consul"
	ts.Setenv("LEASE", mount+"/creds/"+w.service)
	ts.Setenv("LEASE_TOKEN", mount+"/creds/"+w.service+"#token")
	ts.Check(w.request(ctx, "POST", "sys/mounts/"+mount, obj{"type": "consul"}))
	ts.Check(w.request(ctx, "POST", mount+"/config/access", obj{"address": l.Addr().String(), "scheme": "http", "token": "x"}))
	ts.Check(w.request(ctx, "POST", mount+"/roles/"+w.service, obj{"consul_policies": "x", "ttl": args[0], "max_ttl": args[0]}))
}
