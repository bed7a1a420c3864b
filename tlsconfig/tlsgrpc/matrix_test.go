package tlsgrpc_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A cell is one of the ways in which a peer that was fine stops to be.
type cell struct {
	config    tlsconfig.Config
	identity  *tlsconfig.Live
	authorize tlsconfig.Authorizer
	peer      testpki.Pair // the other side's
	turn      func()       // now it must be refused
	want      tlsconfig.Reason
}

func cells(t *testing.T, own, peer testpki.Spec) map[string]cell {
	old, next := testpki.NewCA("old"), testpki.NewCA("next")
	identity := func() *tlsconfig.Live { return live(material(t, next.Issue(own), old, next)) }

	var g gate
	denied := cell{identity: identity(), authorize: g.authorize, peer: old.Issue(peer), want: tlsconfig.ReasonUnauthorized,
		turn: func() { g.denies.Store(true) }}

	removed := cell{identity: identity(), authorize: tlsconfig.AllowTrusted(), peer: old.Issue(peer), want: tlsconfig.ReasonUnknownAuthority}
	removed.turn = func() { removed.identity.Publish(material(t, next.Issue(own), next)) }

	revoked := cell{identity: identity(), authorize: tlsconfig.AllowTrusted(), peer: old.Issue(peer), want: tlsconfig.ReasonRevoked}
	var crl atomic.Pointer[[]byte]
	first := old.CRL(1, time.Hour)
	crl.Store(&first)
	r, err := tlsconfig.OpenRevocation(t.Context(), tlsconfig.RevocationConfig{Identity: revoked.identity, Interval: time.Hour,
		Fetch: []tlsconfig.CRLFetch{func(context.Context) ([]byte, error) { return *crl.Load(), nil }}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	revoked.config.Revocation = r
	revoked.turn = func() {
		second := old.CRL(2, time.Hour, revoked.peer)
		crl.Store(&second)
		if err := r.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	return map[string]cell{"denied": denied, "CA removed": removed, "revoked": revoked}
}

// The ways to be connected when the peer stops to be fine. A silent stream is
// one on which nobody sends anything.
var ways = []string{"fresh", "resumed", "kept-alive", "silent stream"}

func TestMatrixServer(t *testing.T) {
	for _, how := range ways {
		for name, c := range cells(t, serverSpec, clientSpec) {
			t.Run(name+"/"+how, func(t *testing.T) {
				counters := new(tlsconfig.Counters)
				c.config.Metrics = counters
				if how == "silent stream" {
					c.config.DrainTimeout = 200 * time.Millisecond // it is what closes the connection
				}
				var s service
				addr, _ := protect(t, &s, c.config, c.identity, c.authorize)
				creds := plain(c.peer)
				cc := dial(t, addr, creds)
				if err := call(cc); err != nil {
					t.Fatal("refused beforehand:", err)
				}
				switch how {
				case "fresh", "resumed":
					cc.Close()
					if how == "fresh" {
						creds = plain(c.peer)
					} else {
						again := dial(t, addr, creds)
						if err := call(again); err != nil || counters.Snapshot()["server"].Resumed == 0 {
							t.Fatal("nothing was resumed:", err)
						}
						again.Close()
					}
					c.turn()
					cc = dial(t, addr, creds)
				case "silent stream":
					stream := watch(t, cc)
					c.turn()
					if _, err := stream.Recv(); !unavailable(err) {
						t.Fatal("the stream ended with", err)
					}
				default:
					c.turn()
				}
				before := s.reached.Load()
				if err := call(cc); !unavailable(err) {
					t.Fatal("the RPC ended with", err)
				}
				if s.reached.Load() != before {
					t.Error("the RPC reached the service")
				}
				wait(t, "refusal for "+string(c.want), func() bool { return counters.Snapshot()["server"].Refused[c.want] > 0 })
			})
		}
	}
}

// A client of ours resumes no sessions, so that there is no such way.
func TestMatrixClient(t *testing.T) {
	for _, how := range []string{"fresh", "kept-alive", "silent stream"} {
		for name, c := range cells(t, clientSpec, serverSpec) {
			t.Run(name+"/"+how, func(t *testing.T) {
				if how == "silent stream" {
					c.config.DrainTimeout = 200 * time.Millisecond
				}
				var s service
				addr := serve(t, &s, grpc.Creds(plain(c.peer)))
				client := connect(t, addr, c.config, c.identity, c.authorize)
				for range 2 {
					if err := call(client); err != nil {
						t.Fatal("refused beforehand:", err)
					}
				}
				switch how {
				case "fresh":
					client.Close()
					c.turn()
					client = connect(t, addr, c.config, c.identity, c.authorize)
				case "silent stream":
					stream := watch(t, client)
					c.turn()
					if _, err := stream.Recv(); !unavailable(err) {
						t.Fatal("the stream ended with", err)
					}
				default:
					c.turn()
				}
				before := s.reached.Load()
				err := call(client)
				if !unavailable(err) || s.reached.Load() != before {
					t.Fatal("the RPC ended with", err)
				}
				says := map[tlsconfig.Reason]string{tlsconfig.ReasonUnauthorized: "denied for the test", tlsconfig.ReasonRevoked: "is revoked by the CRL",
					tlsconfig.ReasonUnknownAuthority: "no authority in the trust bundle"}[c.want]
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v: it does not say %q", err, says)
				}
			})
		}
	}
}
