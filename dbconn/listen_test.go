package dbconn_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// heard is what a listener got.
type heard chan dbconn.Notification

func (h heard) listen(t *testing.T, db *dbconn.DB, channels ...string) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- db.Listen(ctx, channels, func(n dbconn.Notification) error {
			h <- n
			return nil
		})
	}()
	return func() error { cancel(); return <-done }
}

// next is the next notification.
func (h heard) next(t *testing.T) dbconn.Notification {
	t.Helper()
	select {
	case n := <-h:
		return n
	case <-time.After(patience):
		t.Fatal("nothing is heard")
		return dbconn.Notification{}
	}
}

var resync = dbconn.Notification{Resync: true}

// A listener goes along with a rotation, hears all that is said meanwhile, and is
// told when it may have missed something.
func TestListen(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	h := make(heard, 1000)
	stop := h.listen(t, db, "jobs", "Odd \"name\"")
	if n := h.next(t); n != resync {
		t.Errorf("at the beginning: %+v", n)
	}
	say := func(channel, payload string) {
		t.Helper()
		w.pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_notify('%s', '%s')", channel, payload))
	}
	say("jobs", "one")
	say("Odd \"name\"", "two")
	for _, want := range []dbconn.Notification{{Channel: "jobs", Payload: "one"}, {Channel: "Odd \"name\"", Payload: "two"}} {
		if n := h.next(t); n != want {
			t.Errorf("%+v, want %+v", n, want)
		}
	}

	// Rotations while somebody talks: each word is heard, the connection of the
	// old generation is given back at once, and there is a Resync for each.
	const words, rotations = 200, 3
	talked := make(chan struct{})
	go func() {
		defer close(talked)
		for n := range words {
			if err := w.pg.Do(t.Context(), "postgres", fmt.Sprintf("SELECT pg_notify('jobs', 'word %d')", n)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for n := 1; n <= rotations; n++ {
		w.leases.next()
		if e := w.events.await(t, "database.drained", "", n); e.Attributes["cut_off"] != "0" {
			t.Errorf("cut off: %+v", e)
		}
	}
	<-talked
	say("jobs", "over")
	got, resyncs := map[string]bool{}, 0
	for n := h.next(t); n.Payload != "over"; n = h.next(t) {
		got[n.Payload] = true
		if n.Resync {
			resyncs++
		}
	}
	if delete(got, ""); len(got) != words || resyncs != rotations {
		t.Errorf("%d words of %d, %d resyncs", len(got), words, resyncs)
	}

	// The server ends the session.
	w.pg.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'v-app-%'")
	for n := h.next(t); n != resync; n = h.next(t) { // "over" may come twice
		if n.Payload != "over" {
			t.Errorf("%+v", n)
		}
	}
	say("jobs", "again")
	if n := h.next(t); n.Payload != "again" {
		t.Errorf("%+v", n)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// Nobody gets a connection that listens.
	var listening int
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_listening_channels()").Scan(&listening); err != nil || listening != 0 {
		t.Errorf("%d channels, %v", listening, err)
	}
}

func TestListenEnds(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	db := open(t, w.config())
	for _, channels := range [][]string{nil, {""}, {"a\x00"}} {
		if err := db.Listen(t.Context(), channels, nil); !errors.Is(err, dbconn.ErrConfig) {
			t.Errorf("%q: %v", channels, err)
		}
	}
	enough := errors.New("enough")
	if err := db.Listen(t.Context(), []string{"jobs"}, func(dbconn.Notification) error { return enough }); err != enough { //nolint:errorlint // itself
		t.Errorf("%v", err)
	}
	h := make(heard, 10)
	stop := h.listen(t, db, "jobs")
	h.next(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := db.Close(ctx); err != nil {
		t.Errorf("a listener keeps the pool open: %v", err)
	}
	if err := stop(); !errors.Is(err, dbconn.ErrClosed) {
		t.Errorf("%v", err)
	}
}
