package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig/assertion"
)

// plainHTTP is the name under which the test's binary is a program that speaks
// plain HTTP and knows nothing of Phoenix.
const plainHTTP = "plainhttp"

// userHeaders are those in which plainhttp speaks of users.
var userHeaders = []string{"X-User-Id", "X-User-Roles", "X-Internal-Auth"}

// serveHTTP is "plainhttp ADDR [URL]": / says who called for whom, /via asks URL
// in turn, for the same user, and passes the answer on.
func serveHTTP(args []string) int {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s peer=%q body=%q", r.Method, r.URL, r.Header.Values("Phoenix-Peer"), body)
		for _, name := range userHeaders {
			if values := r.Header[name]; values != nil {
				fmt.Fprintf(w, " %s=%q", name, values)
			}
		}
	})
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16}}
	mux.HandleFunc("/via", func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, args[1], r.Body)
		if err == nil {
			for _, name := range userHeaders {
				if values := r.Header[name]; values != nil {
					req.Header[name] = values
				}
			}
			var resp *http.Response
			if resp, err = client.Do(req); err == nil {
				defer resp.Body.Close()
				w.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(w, resp.Body)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Addr: args[0], Handler: mux}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		_ = srv.Shutdown(context.Background())
	}()
	fmt.Println("up")
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-ended
	return 0
}

// mesh TTL: a CA at SERVICE-pki whose role web gives certificates of that
// lifetime for gateway and hr.
func mesh(ts *testscript.TestScript, _ bool, args []string) {
	w, ctx := of(ts), context.Background()
	mount := w.service + "-pki"
	ts.Check(w.request(ctx, "POST", "sys/mounts/"+mount, obj{"type": "pki"}))
	ts.Check(w.request(ctx, "POST", mount+"/root/generate/internal", obj{"common_name": "test root", "ttl": "24h"}))
	ts.Check(w.request(ctx, "POST", mount+"/roles/web", obj{
		"allowed_domains": "gateway,hr", "allow_bare_domains": true, "ttl": args[0], "key_type": "any", "not_before_duration": "1s",
	}))
}

// fetch CODE REGEXP URL [HEADER=VALUE…]: asks until that is the answer.
func fetch(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[1])
	poll(ts, func() error {
		req, err := http.NewRequest(http.MethodGet, args[2], nil)
		ts.Check(err)
		for _, header := range args[3:] {
			name, value, _ := strings.Cut(header, "=")
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if fmt.Sprint(resp.StatusCode) != args[0] || !re.Match(body) {
			return fmt.Errorf("%s: %s: %s", args[2], resp.Status, body)
		}
		return nil
	})
}

// post CODE SOCKET PATH BODY: posts to a unix socket.
func post(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", args[1])
	}}}
	resp, err := client.Post("http://agent"+args[2], "application/json", strings.NewReader(args[3]))
	ts.Check(err)
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if fmt.Sprint(resp.StatusCode) != args[0] {
		ts.Fatalf("%s: %s", resp.Status, body)
	}
}

// hammer URL FILE REGEXP COUNT [SECRET]: posts from eight sides until the file
// matches so often, and puts the secret after each match but the last. Every
// answer must be 200 with what was posted.
func hammer(ts *testscript.TestScript, _ bool, args []string) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	var sent atomic.Int64
	failed := make(chan error, 1)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				text := fmt.Sprintf("%d-%d", worker, i)
				resp, err := client.Post(args[0], "text/plain", strings.NewReader(text))
				if err == nil {
					body, readErr := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err = readErr; err == nil && (resp.StatusCode != 200 || !strings.Contains(string(body), text)) {
						err = fmt.Errorf("%s: %s", resp.Status, body)
					}
				}
				if err != nil {
					select {
					case failed <- fmt.Errorf("after %d requests: %w", sent.Load(), err):
					default:
					}
					return
				}
				sent.Add(1)
			}
		})
	}
	if count, err := strconv.Atoi(args[3]); len(args) > 4 {
		ts.Check(err)
		for i := range count - 1 {
			await(ts, false, []string{args[1], args[2], strconv.Itoa(i + 1)})
			ts.Check(of(ts).request(ctx, "POST", of(ts).service+"/data/"+args[4], obj{"data": obj{"v": fmt.Sprintf("s3cr3t-of-%d", i)}}))
		}
	}
	await(ts, false, args[1:4])
	stop()
	wg.Wait()
	select {
	case err := <-failed:
		ts.Fatalf("%v", err)
	default:
		ts.Logf("%d requests", sent.Load())
	}
}

// token NAME USER ROLES: sets a variable to a token that is signed with the
// first value of the secret s1.
func token(ts *testscript.TestScript, _ bool, args []string) {
	shared := assertion.Shared{Key: secrets.New([]byte("0123456789abcdef0123456789abcdef"))}
	text, err := shared.Sign(assertion.User{ID: args[1], Roles: strings.Split(args[2], ",")}, time.Now())
	ts.Check(err)
	ts.Setenv(args[0], text)
}
