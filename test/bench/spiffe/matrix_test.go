package spiffe_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
)

var (
	turns = []string{"denied", "CA removed", "revoked"}
	ways  = []string{"fresh", "resumed", "kept-alive HTTP/1.1", "kept-alive HTTP/2"}
)

// The resumption matrix: a peer that was fine stops to be, and comes again. It
// prints what go-spiffe does, and fails if ours accepts in any cell.
func BenchmarkSpiffeMatrix(b *testing.B) {
	for range b.N {
		out := b.Output()
		all, accepted := 2*len(turns)*len(ways), 0
		fmt.Fprintf(out, "%-20s", "go-spiffe")
		for _, way := range ways {
			fmt.Fprintf(out, " %-19s", way)
		}
		for _, server := range []bool{true, false} {
			for _, turn := range turns {
				side := map[bool]string{true: "server", false: "client"}[server]
				fmt.Fprintf(out, "\n%-20s", side+", "+turn)
				for _, way := range ways {
					if err := cell(b, "tlsconfig", server, turn, way); err == nil || errors.Is(err, errNotResumed) {
						b.Errorf("tlsconfig, %s, %s, %s: accepted: %v", side, turn, way, err)
					}
					err := cell(b, "go-spiffe", server, turn, way)
					word := "refused"
					switch {
					case errors.Is(err, errNotResumed):
						b.Error("go-spiffe", side, turn, way, err)
					case err == nil:
						word = "ACCEPTED"
						accepted++
					}
					fmt.Fprintf(out, " %-19s", word)
				}
			}
		}
		fmt.Fprintf(out, "\ngo-spiffe accepts in %d of %d cells, ours in none: %v\n", accepted, all, !b.Failed())
		b.ReportMetric(float64(accepted), "accepted-go-spiffe")
	}
}

var errNotResumed = errors.New("the session was not resumed: the cell would show nothing")

// cell returns why the peer was refused after its turn, nil if it was accepted
// for as long as the deadline.
func cell(b *testing.B, library string, server bool, turn, way string) error {
	own, other := serverSpec, clientSpec
	if !server {
		own, other = other, own
	}
	s := newScene(own)
	peer := s.old.Issue(other)
	var p party = newGoSpiffe(b, s)
	if library == "tlsconfig" {
		p = newPhoenix(b, s, true)
	}
	now := func() {
		switch turn {
		case "denied":
			p.deny()
		case "CA removed":
			p.removeOld()
		case "revoked":
			p.revoke(peer)
		}
	}
	if way == "fresh" || way == "resumed" {
		return handshakes(b, p, peer, server, way == "resumed", now)
	}
	return requests(b, p, peer, server, way == "kept-alive HTTP/2", now)
}

// handshakes connects twice, and once more after the turn.
func handshakes(b *testing.B, p party, peer testpki.Pair, server, resume bool, turn func()) error {
	var cache tls.ClientSessionCache
	if resume {
		cache = tls.NewLRUClientSessionCache(8)
	}
	client, srv := plain(peer, cache), p.config(true)
	if !server {
		client, srv = p.config(false), plain(peer, nil)
		client.ServerName = "mcp-hr"
		client.ClientSessionCache = cache
	}
	addr, stop := listen(b, srv)
	defer stop()
	for range 2 {
		_, err := exchange(addr, client)
		check(b, err)
	}
	turn()
	cs, err := exchange(addr, client)
	if err == nil && resume && !cs.DidResume {
		return errNotResumed
	}
	return err
}

// requests sends one, and others after the turn, on one connection.
func requests(b *testing.B, p party, peer testpki.Pair, server, http2 bool, turn func()) error {
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Protocols: protocols(http2),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	var via http.RoundTripper
	stop := func() {}
	if server {
		stop = p.serve(srv)
		client := &http.Transport{TLSClientConfig: plain(peer, nil), Protocols: protocols(http2)}
		defer client.CloseIdleConnections()
		via = client
	} else {
		srv.TLSConfig = plain(peer, nil)
		via, stop = p.transport(http2)
	}
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	defer func() { srv.Close(); <-done }()
	url := "https://" + l.Addr().String()
	check(b, get(via, url))
	turn()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(deadline / 10) {
		if err := get(via, url); err != nil {
			return err
		}
	}
	return get(via, url)
}

func get(via http.RoundTripper, url string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := via.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// listen answers each connection with one byte.
func listen(b testing.TB, config *tls.Config) (string, func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(raw, config)
			if conn.Handshake() == nil {
				_, _ = conn.Write([]byte("x"))
			}
			conn.Close()
		}
	}()
	return l.Addr().String(), func() { l.Close(); <-done }
}

// exchange connects and waits for the byte: a client learns of a refusal no
// earlier.
func exchange(addr string, config *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), err
}
