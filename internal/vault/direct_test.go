package vault_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A memoryServer answers in fake time, and counts its connections.
type memoryServer struct {
	conns chan net.Conn
	done  chan struct{}
	dials atomic.Int32
	open  atomic.Int32
	rtt   time.Duration
}

func (s *memoryServer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}
func (s *memoryServer) Close() error   { return nil }
func (s *memoryServer) Addr() net.Addr { return &net.TCPAddr{} }

func (s *memoryServer) dial(context.Context, string, string) (net.Conn, error) {
	time.Sleep(s.rtt)
	client, server := net.Pipe()
	s.dials.Add(1)
	s.conns <- server
	return client, nil
}

// inMemory runs f in fake time with a Client whose server takes that long for
// each answer.
func inMemory(t *testing.T, rtt, answer time.Duration, f func(*testing.T, *memoryServer, *vault.Client)) {
	synctest.Test(t, func(t *testing.T) {
		s := &memoryServer{conns: make(chan net.Conn), done: make(chan struct{}), rtt: rtt}
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // or the server does not see us go
				select {
				case <-time.After(answer):
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, `{"data":{"x":"y"}}`)
			}),
			ConnState: func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					s.open.Add(1)
				case http.StateClosed:
					s.open.Add(-1)
				}
			},
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(s) })
		c, err := vault.New(vault.Config{Addr: "http://127.0.0.1", DialContext: s.dial, Erase: true})
		if err != nil {
			t.Fatal(err)
		}
		f(t, s, c)
		c.Close()
		synctest.Wait()
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d connections are open after Close", n)
		}
		close(s.done)
		_ = server.Close()
		wg.Wait()
	})
}

func readMany(t *testing.T, c *vault.Client, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := c.Read(t.Context(), "a/b", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// As many connections as help, and one for what comes alone.
func TestErasingConnections(t *testing.T) {
	for name, test := range map[string]struct {
		rtt, answer time.Duration
		want        int32
	}{
		"nearby":   {10 * time.Microsecond, time.Millisecond, 2},
		"far away": {5 * time.Millisecond, 5 * time.Millisecond, 4},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, test.rtt, test.answer, func(t *testing.T, s *memoryServer, c *vault.Client) {
				for range 5 {
					readMany(t, c, 1)
				}
				if n := s.dials.Load(); n != 1 {
					t.Errorf("%d connections for one request at a time", n)
				}
				readMany(t, c, 20)
				if n := s.dials.Load(); n != test.want {
					t.Errorf("%d connections, want %d", n, test.want)
				}
			})
		})
	}
}

// Buffers hold plaintext: connections do not outlive their use.
func TestErasingConnectionsEnd(t *testing.T) {
	inMemory(t, 5*time.Millisecond, time.Millisecond, func(t *testing.T, s *memoryServer, c *vault.Client) {
		readMany(t, c, 4)
		time.Sleep(900 * time.Millisecond)
		readMany(t, c, 1)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if n := s.open.Load(); n != 1 {
			t.Errorf("%d connections are open where one was used within a second", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d connections are open after a second without use", n)
		}
		before := s.dials.Load()
		for range 590 { // nearly five minutes of use
			readMany(t, c, 1)
			time.Sleep(500 * time.Millisecond)
		}
		if n := s.dials.Load() - before; n != 5 {
			t.Errorf("%d connections in five minutes, want one for each", n)
		}
	})
}

func TestErasingRequestEndsWithItsContext(t *testing.T) {
	inMemory(t, 0, time.Hour, func(t *testing.T, s *memoryServer, c *vault.Client) {
		for name, n := range map[string]int{"while the server thinks": 1, "while others have the connections": 9} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					if _, err := c.Read(ctx, "a/b", nil); !errors.Is(err, vault.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			wg.Wait()
			cancel()
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.Login(ctx, "approle", "role", secrets.NewString("id")); !errors.Is(err, vault.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
			t.Errorf("a login that was sent: %v", err)
		}
		if _, err := c.Login(ctx, "approle", "role", secrets.NewString("id")); errors.Is(err, vault.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
			t.Errorf("a login that was not: %v", err)
		}
	})
}

// A connection that the server has closed meanwhile costs no SecretID.
func TestErasingLoginAfterAnIdleConnection(t *testing.T) {
	var requests atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.WriteString(w, `{"auth":{"client_token":"hvs.x"}}`)
	}))
	defer s.Close()
	c, err := vault.New(vault.Config{Addr: s.URL, Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Login(t.Context(), "approle", "role", secrets.NewString("id")); err != nil {
			t.Fatal(err)
		}
		s.CloseClientConnections()
	}
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests", n)
	}
}

// What a server may write, and what a broken or hostile one does.
func TestErasingReadsAnswers(t *testing.T) {
	const endless = "HTTP/1.1 200 OK\r\nX: "
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n" + `{"data":{"x":"y"}}`
	for name, test := range map[string]struct {
		answer string
		want   error
		again  bool // the connection is used again
	}{
		"plain":                  {good, nil, true},
		"after an early hint":    {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + good, nil, true},
		"chunked":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n" + `{"data":{"x":"y"}}` + "\r\n0\r\n\r\n", nil, true},
		"HTTP/1.0":               {strings.Replace(good, "1.1", "1.0", 1), nil, false},
		"asked to close":         {strings.Replace(good, "\r\n", "\r\nConnection: close\r\n", 1), nil, false},
		"two answers to one":     {good + "HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n" + `{"data":{"x":"another one's"}}`, nil, false},
		"no answer":              {"", vault.ErrUnreachable, false},
		"half a head":            {good[:20], vault.ErrUnreachable, false},
		"half a body":            {good[:len(good)-5], vault.ErrUnreachable, false},
		"not HTTP":               {"SSH-2.0-OpenSSH\r\n", vault.ErrUnreachable, false},
		"a head without an end":  {endless, vault.ErrUnreachable, false},
		"a length that is wrong": {strings.Replace(good, "18", "-1", 1), vault.ErrUnreachable, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var conns atomic.Int32
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conns.Add(1)
					wg.Go(func() {
						defer conn.Close()
						for in := bufio.NewReader(conn); ; {
							if _, err := http.ReadRequest(in); err != nil {
								return
							}
							_, err := io.WriteString(conn, test.answer)
							for chunk := strings.Repeat("x", 1<<20); err == nil && test.answer == endless; {
								_, err = io.WriteString(conn, chunk)
							}
							if err != nil || test.want != nil {
								return
							}
						}
					})
				}
			})
			c, err := vault.New(vault.Config{Addr: "http://" + l.Addr().String(), Erase: true})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				resp, err := c.Read(t.Context(), "a/b", nil)
				if !errors.Is(err, test.want) || err == nil && fmt.Sprint(resp.Data["x"]) != "y" {
					t.Errorf("%v, %v", resp, err)
				}
			}
			if n := conns.Load(); (n == 1) != test.again {
				t.Errorf("%d connections for two requests", n)
			}
			if _, err := c.Login(t.Context(), "approle", "role", secrets.NewString("id")); test.want != nil && !errors.Is(err, vault.ErrOutcomeUnknown) {
				t.Errorf("login: %v", err)
			}
			c.Close()
			l.Close()
			wg.Wait()
		})
	}
}

// A token cannot add a header of its own.
func TestErasingRefusesControlCharacters(t *testing.T) {
	asked := false
	c := serve(t, func(http.ResponseWriter, *http.Request) { asked = true }, func(cfg *vault.Config) { cfg.Erase = true })
	c, err := c.WithToken(secrets.NewString("hvs.x\r\nX-Evil: 1"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(t.Context(), "a/b", nil)
	var e *vault.Error
	if !errors.As(err, &e) || e.Sent || asked || strings.Contains(err.Error(), "Evil") {
		t.Errorf("error: %v", err)
	}
}
