package sidecar_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

type peers = map[string]sidecar.Peer

func TestConfigIsRefused(t *testing.T) {
	serve := func(p peers) sidecar.Config {
		return sidecar.Config{Serve: []sidecar.Inbound{{At: ":3101", To: "127.0.0.1:1", Peers: p}}}
	}
	call := func(c sidecar.Call, more ...sidecar.Call) sidecar.Config {
		return sidecar.Config{Call: append([]sidecar.Call{c}, more...)}
	}
	users := func(u sidecar.Users) sidecar.Config { return sidecar.Config{Users: u} }
	for want, cfg := range map[string]sidecar.Config{
		"it has no peers":                         serve(nil),
		`has the mode "lax"`:                      serve(peers{"a": {Mode: "lax"}}),
		"which is no network":                     serve(peers{"a": {Mode: sidecar.Report, From: []string{"10.0.0.1"}}}),
		"from would be for nothing":               serve(peers{"a": {From: []string{"10.0.0.0/8"}}}),
		"neither a DNS name nor a URI":            serve(peers{"a b": {}}),
		"is no URI":                               serve(peers{"spiffe:///x": {}}),
		"that one service alone has":              serve(peers{"10.0.0.1": {}}),
		"there is no block users":                 serve(peers{"a": {User: sidecar.Required}}),
		"may use the shared token":                serve(peers{"a": {Token: true}}),
		"there are optional, required":            serve(peers{"a": {User: "perhaps"}}),
		"no place to listen at":                   {Serve: []sidecar.Inbound{{At: "unix:/x", To: "127.0.0.1:1", Peers: peers{"a": {}}}}},
		"lead to the agent itself":                {Serve: []sidecar.Inbound{{At: "127.0.0.1:1", To: "127.0.0.1:1", Peers: peers{"a": {}}}}},
		"have the program listen at another port": {Serve: []sidecar.Inbound{{At: ":3000", To: "localhost:3000", Peers: peers{"a": {}}}}},
		"to 127.0.0.1:4 would lead to the agent": {
			Serve: []sidecar.Inbound{{At: ":1", To: "127.0.0.1:4", Peers: peers{"a": {}}}},
			Call:  []sidecar.Call{{Peer: "b", To: "b:1", At: "localhost:4"}},
		},
		"listens at :3 already": {Serve: []sidecar.Inbound{
			{At: "10.0.0.1:3", To: "127.0.0.1:1", Peers: peers{"a": {}}}, {At: ":3", To: "127.0.0.1:1", Peers: peers{"a": {}}},
		}},
		"past the sidecar":               {Serve: []sidecar.Inbound{{At: ":1", To: "0.0.0.0:1", Peers: peers{"a": {}}}}},
		"a limit is negative":            {Serve: []sidecar.Inbound{{At: ":1", To: "127.0.0.1:2", Peers: peers{"a": {}}, MaxBody: -1}}},
		"nothing leads to it":            call(sidecar.Call{Peer: "a", To: "a:1"}),
		"is no address":                  call(sidecar.Call{Peer: "a", To: "a", At: anywhere}),
		"call in the program's name":     call(sidecar.Call{Peer: "a", To: "a:1", At: "10.0.0.1:1"}),
		"there are assertion, token":     call(sidecar.Call{Peer: "a", To: "a:1", At: anywhere, User: "loud"}),
		"to have the shared token":       call(sidecar.Call{Peer: "a", To: "a:1", At: anywhere, User: sidecar.AsToken}),
		"listens at 127.0.0.1:9 already": call(sidecar.Call{Peer: "a", To: "a:1", At: "127.0.0.1:9"}, sidecar.Call{Peer: "b", To: "b:1", At: "127.0.0.1:9"}),
		"no call that it could lead to":  {Proxy: anywhere},
		"another call has the host a": {Proxy: "127.0.0.1:8", Call: []sidecar.Call{
			{Peer: "a", To: "a:1"}, {Peer: "a2", To: "A:2"},
		}},
		"connect in the program's name": {Tunnel: []sidecar.Tunnel{{Peer: "a", To: "a:1", At: ":1"}}},
		"there are http1 and h2c":       {Serve: []sidecar.Inbound{{At: ":1", To: "127.0.0.1:2", Peers: peers{"a": {}}, Protocol: "h3"}}},
		"leave upgrade out":             {Serve: []sidecar.Inbound{{At: ":1", To: "127.0.0.1:2", Peers: peers{"a": {}}, Protocol: sidecar.H2C, Upgrade: []string{"websocket"}}}},
		"give it a port with at":        {Proxy: anywhere, Call: []sidecar.Call{{Peer: "a", To: "a:1", Protocol: sidecar.H2C}}},
		"needs an absolute path":        {Tunnel: []sidecar.Tunnel{{Peer: "a", To: "a:1", At: "unix:x"}}},
		"belong together":               users(sidecar.Users{ID: "X-Id", Token: "X-Token"}),
		"no header for the user's ID":   users(sidecar.Users{Roles: "X-Roles"}),
		"the sidecar's own":             users(sidecar.Users{ID: "phoenix-user"}),
		"is named twice":                users(sidecar.Users{ID: "X-Id", Roles: "x-id"}),
		"has a meaning of its own":      users(sidecar.Users{ID: "X-Id", Roles: "connection"}),
		"Host has a meaning":            users(sidecar.Users{ID: "host"}),
		"is no name of a header":        users(sidecar.Users{ID: "X_Id"}),
		"has no header":                 users(sidecar.Users{ID: "X-Id", Attributes: map[string]string{"email": ""}}),
	} {
		if err := cfg.Check(); !errors.Is(err, sidecar.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v\n%v, want %q", cfg, err, want)
		}
	}
	if nothing := (sidecar.Config{}); nothing.Configured() || nothing.Check() != nil {
		t.Error("nothing is something")
	}
}

// What was checked and filled in passes, and stays, when it is checked again.
func TestConfigCheckedTwice(t *testing.T) {
	for _, u := range []sidecar.Users{{}, {ID: "x-user-id", Attributes: map[string]string{"email": "x-mail"}}} {
		cfg := sidecar.Config{
			Serve:  []sidecar.Inbound{{At: ":3101", To: "127.0.0.1:1", Peers: peers{"a": {}, "b": {Mode: sidecar.Report}}}},
			Call:   []sidecar.Call{{Peer: "c", To: "C:1", At: anywhere}, {Peer: "e", To: "e:1", At: anywhere, Protocol: sidecar.H2C}},
			Tunnel: []sidecar.Tunnel{{Peer: "d", To: "d:1", At: "unix:/run/d.sock"}},
			Users:  u,
		}
		if err := cfg.Check(); err != nil {
			t.Fatal(err)
		}
		first := cfg
		first.Call = append([]sidecar.Call(nil), cfg.Call...)
		if err := cfg.Check(); err != nil || !reflect.DeepEqual(first, cfg) {
			t.Errorf("%v\n%+v\n%+v", err, first, cfg)
		}
	}
}

// A place that is taken is said before anything is started.
func TestProbe(t *testing.T) {
	l, err := net.Listen("tcp", anywhere)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket := filepath.Join(t.TempDir(), "a.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, at := range map[string]string{"address already in use": l.Addr().String(), "no socket": "unix:" + socket} {
		cfg := sidecar.Config{Tunnel: []sidecar.Tunnel{{Peer: "a", To: "a:1", At: at}}}
		if err := sidecar.Probe(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", at, err)
		}
		w := newWorld(t)
		if _, err := sidecar.Start(cfg, sidecar.Host{Identity: w.as("a")}); err == nil {
			t.Errorf("%s: it started", at)
		}
	}
}

// A unix socket is for the agent's user alone, and one that was left behind is
// replaced.
func TestUnixSocket(t *testing.T) {
	w := newWorld(t)
	hr, _ := w.callee(tell, nil)
	socket := filepath.Join(t.TempDir(), "hr.sock")
	left, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	w.caller(hr, func(c *sidecar.Config, _ *sidecar.Host) {
		c.Call = append(c.Call, sidecar.Call{At: "unix:" + socket, Peer: "mcp-hr", To: hr})
	})
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if answers := send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1); len(answers) != 1 || answers[0].StatusCode != 200 {
		t.Error(answers)
	}
}
