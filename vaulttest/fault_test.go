package vaulttest_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tamshai/phoenix/vaulttest"
)

func TestFaultStatus(t *testing.T) {
	v := vaulttest.New(t)
	v.Inject(vaulttest.Fault{Method: "GET", Path: "sys/mounts", Status: 429, RetryAfter: 1500 * time.Millisecond, Count: 1})
	v.Inject(vaulttest.Fault{Path: "sys/auth", Status: 500, Body: `{"errors":["mine"]}`, Count: 1})
	c := as(v, v.RootToken())

	req, _ := http.NewRequest("GET", v.Addr()+"/v1/sys/mounts", nil)
	resp, err := v.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "2" {
		t.Errorf("status %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	fields := c.want(t, 500, "GET", "sys/auth", "")
	if diff := cmp.Diff([]any{"mine"}, fields["errors"]); diff != "" {
		t.Error(diff)
	}
	c.want(t, 200, "GET", "sys/mounts", "")
	c.want(t, 200, "GET", "sys/auth", "")
}

func TestFaultAfterAndCount(t *testing.T) {
	v := vaulttest.New(t)
	remove := v.Inject(vaulttest.Fault{Path: "sys/*", After: 2, Count: 2, Status: 503})
	c := as(v, v.RootToken())
	var got []int
	for range 6 {
		status, _, err := c.do("GET", "sys/mounts", "")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, status)
	}
	if diff := cmp.Diff([]int{200, 200, 503, 503, 200, 200}, got); diff != "" {
		t.Error(diff)
	}
	remove()
	forever := v.Inject(vaulttest.Fault{Status: 503})
	c.want(t, 503, "GET", "sys/health", "")
	forever()
	forever()
	c.want(t, 200, "GET", "sys/health", "")
}

// cut tells whether an error is that of a connection that was closed.
func cut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || (err != nil && strings.Contains(err.Error(), "stream error"))
}

func TestFaultsOnALogin(t *testing.T) {
	for name, test := range map[string]struct {
		fault     vaulttest.Fault
		status    int // 0: cut
		processed bool
	}{
		"cut before":  {vaulttest.Fault{Cut: true}, 0, false},
		"lost answer": {vaulttest.Fault{Cut: true, Process: true}, 0, true},
		"502 before":  {vaulttest.Fault{Status: 502}, 502, false},
		"502 after":   {vaulttest.Fault{Status: 502, Process: true}, 502, true},
		"seal":        {vaulttest.Fault{Seal: true}, 503, false},
	} {
		for protocol, cfg := range map[string]vaulttest.Config{"HTTP/1": {}, "HTTP/2": {TLS: true}} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				v := start(t, cfg)
				roleID, secretID := v.AppRole("mcp-hr")
				test.fault.Path, test.fault.Count = "auth/*/login", 1
				v.Inject(test.fault)
				c := as(v, "")
				status, _, err := c.do("POST", "auth/approle/login", loginBody(roleID, secretID))
				if test.status == 0 && !cut(err) {
					t.Errorf("status %d, error %v, want a cut connection", status, err)
				}
				if test.status != 0 && (err != nil || status != test.status) {
					t.Errorf("status %d, error %v, want %d", status, err, test.status)
				}
				v.Unseal()
				want := 200
				if test.processed {
					want = 400 // spent
				}
				c.want(t, want, "POST", "auth/approle/login", loginBody(roleID, secretID))

				var login []vaulttest.Request
				for _, r := range v.Requests() {
					if r.SecretIDAccessor != "" {
						login = append(login, r)
					}
				}
				if len(login) != 2 || login[0].Status != test.status {
					t.Errorf("journal of the logins: %+v", login)
				}
			})
		}
	}
}

func TestFaultLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := vaulttest.Start(vaulttest.Config{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		v.Inject(vaulttest.Fault{Path: "sys/health", Latency: 90 * time.Second})
		began := time.Now()
		as(v, "").want(t, 200, "GET", "sys/health", "")
		if got := time.Since(began); got != 90*time.Second {
			t.Errorf("took %v, want 90s", got)
		}
	})
}

func TestCloseEndsASlowRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := vaulttest.Start(vaulttest.Config{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		v.Inject(vaulttest.Fault{Latency: time.Hour})
		began := time.Now()
		done := make(chan error)
		go func() {
			_, _, err := as(v, "").do("POST", "sys/health", "")
			done <- err
		}()
		synctest.Wait()
		v.Close()
		if err := <-done; err == nil {
			t.Error("a request outlived its server")
		}
		if got := time.Since(began); got != 0 {
			t.Errorf("Close took %v", got)
		}
	})
}
