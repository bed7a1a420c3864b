package mongoconn_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn/mongoconn"
	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/secrets"
)

// A hanging source lets so many connections through for each attempt with its
// lease: one that fails is made again by itself.
type hanging struct {
	*leaser
	mid   *middle
	whole int // see middle; guarded by the leaser's mu
}

func (h *hanging) hangAfter(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.whole = n
}

func (h *hanging) Current(ctx context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	h.mu.Lock()
	h.mid.hangAfter(h.whole)
	h.mu.Unlock()
	return h.leaser.Current(ctx)
}

// When a login fails the driver breaks off the connections that it is making
// besides. That is not why the lease does not work: the login is.
func TestRefusedWhileDialling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	mid := newMiddle(t, w.m)
	cfg := w.config()
	leases := &hanging{leaser: w.leases, mid: mid, whole: -1}
	cfg.Addr, cfg.Leases = mid.addr, leases
	db := open(t, cfg)
	var both, done sync.WaitGroup // so that a generation is to have two connections
	both.Add(2)
	for range 2 {
		done.Go(func() {
			if err := db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
				return client.UseSession(ctx, func(ctx context.Context) error {
					both.Done()
					both.Wait()
					return client.Ping(ctx, nil)
				})
			}); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	for n := range 5 {
		leases.hangAfter(3) // two watch the server, one logs in
		w.leases.mu.Lock()
		w.leases.publish(newLease(fmt.Sprintf("nobody-%d", n), "Password-of-nobody", time.Hour))
		w.leases.mu.Unlock()
		w.events.await(t, "database.rotation", auditlog.Failure, n+1)
		if s := db.Stats(); !errors.Is(s.LastError, mongoconn.ErrRefused) {
			t.Fatalf("%d: %+v", n, s)
		}
	}
	leases.hangAfter(-1)
	w.leases.next()
	w.events.await(t, "database.rotation", "", 1)
}
