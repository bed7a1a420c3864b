package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// A lease on a key: what signs until it is told not to, for a while or for good.
type leased struct {
	auditlog.Signer
	away, gone atomic.Bool
}

func (s *leased) Sign(ctx context.Context, message []byte) ([]byte, ed25519.PublicKey, error) {
	switch {
	case s.gone.Load():
		return nil, nil, auditlog.ErrSignerGone
	case s.away.Load():
		return nil, nil, errors.New("vault is sealed")
	}
	return s.Signer.Sign(ctx, message)
}

func leasedKey(t testing.TB) (*leased, ed25519.PublicKey) {
	signer, public := key(t)
	return &leased{Signer: signer}, public
}

// Whoever takes the key away has everything signed before. Nothing then waits
// for the key, and the log is as closed as one that has it to the end.
func TestSealBeforeTheKeyGoes(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	anchor, err := auditlog.DirAnchor(anchors)
	must(t, err)
	signer, public := leasedKey(t)
	l := openT(t, dir, auditlog.Config{Anchor: anchor, CheckpointEvery: time.Hour})
	must(t, l.Seal(t.Context())) // nobody can sign yet
	must(t, l.Attach(signer))
	for range 10 {
		must(t, l.Append(t.Context(), event("x")))
	}
	must(t, l.Seal(t.Context()))
	if s := l.Status(); s.Sealed != 11 {
		t.Errorf("%+v", s)
	}
	must(t, l.Seal(t.Context()))
	signer.gone.Store(true)
	must(t, l.Close(t.Context()))
	must(t, l.Seal(t.Context()))
	r := verify(t, dir, anchors, public)
	if r.Err() != nil || !r.Epochs[0].Closed || r.Epochs[0].Open != 0 || r.Events != 10 {
		t.Errorf("%v %+v", r.Err(), r.Epochs)
	}
}

// What comes after is the window that the report has, until the next start
// covers it.
func TestWhatComesAfterTheKeyIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		signer, public := leasedKey(t)
		sound := func() *auditlog.Report {
			t.Helper()
			r, err := auditlog.Verify(t.Context(), disk.view(), auditlog.VerifyConfig{Keys: keysOf(public)})
			must(t, err)
			must(t, r.Err())
			return r
		}
		l, err := auditlog.OpenOn(disk, simConfig)
		must(t, err)
		must(t, l.Attach(signer))
		must(t, l.Append(t.Context(), event("before")))
		must(t, l.Seal(t.Context()))
		signer.gone.Store(true)
		must(t, l.Append(t.Context(), event("after")))
		began := time.Now()
		must(t, l.Close(t.Context()))
		if took := time.Since(began); took > 9*time.Second { // what Close gives a key that may come back
			t.Errorf("Close has waited %v for it", took)
		}
		if r := sound(); r.Epochs[0].Closed || r.Epochs[0].Unsealed != 1 {
			t.Errorf("%+v", r.Epochs)
		}
		signer.gone.Store(false)
		l, err = auditlog.OpenOn(disk, simConfig)
		must(t, err)
		must(t, l.Attach(signer))
		must(t, l.Close(t.Context()))
		if r := sound(); !r.Epochs[0].Closed || r.Epochs[0].Unsealed != 0 {
			t.Errorf("%+v", r.Epochs)
		}
	})
}

// A key that is away for a while is waited for, but not longer than the caller
// has time, and the status says so.
func TestSealWhileTheKeyIsAway(t *testing.T) {
	signer, public := leasedKey(t)
	signer.away.Store(true)
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{})
	must(t, l.Attach(signer))
	must(t, l.Append(t.Context(), event("x")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sealed := make(chan error, 1)
	go func() { sealed <- l.Seal(ctx) }()
	until(t, "the status says so", func() bool { return l.Status().Failing != "" })
	cancel()
	if err := <-sealed; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if s := l.Status(); s.Failing == "" || s.Unsealed != 2 {
		t.Errorf("%+v", s)
	}
	signer.away.Store(false)
	must(t, l.Close(t.Context()))
	if r := verify(t, dir, "", public); r.Err() != nil || r.Epochs[0].Unsealed != 0 {
		t.Errorf("%v", r.Err())
	}
}

// Where nothing happens a checkpoint is signed at each heartbeat, and not more
// often: silence is proven too.
func TestSilenceIsSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, public := key(t)
		disk := newSimDisk()
		l, err := auditlog.OpenOn(disk, auditlog.Config{SegmentSize: 256 << 10, CheckpointEvery: time.Second, Heartbeat: time.Minute})
		must(t, err)
		must(t, l.Attach(signer))
		must(t, l.Append(t.Context(), event("x")))
		time.Sleep(10*time.Minute + 30*time.Second)
		if s := l.Status(); s.Seq != 2+1+10 || s.Sealed != s.Seq-1 { // genesis, event, its checkpoint, and one a minute
			t.Errorf("%+v", s)
		}
		must(t, l.Close(t.Context()))
		r, err := auditlog.Verify(t.Context(), disk, auditlog.VerifyConfig{Keys: keysOf(public)})
		must(t, err)
		if r.Err() != nil || !r.Epochs[0].Closed {
			t.Errorf("%v %+v", r.Err(), r.Epochs)
		}
	})
}
