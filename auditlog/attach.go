package auditlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// attached is what runs beside the committer once there is a signer.
type attached struct {
	logger   *slog.Logger
	cancel   context.CancelCauseFunc
	sealer   sync.WaitGroup
	shippers sync.WaitGroup
	stopSeal chan struct{}
	ask      chan chan<- error // of Log.Seal to the sealer
	unsealer chan struct{}     // closed when there is no sealer, or no more
	stopShip chan struct{}
	sinks    []*shipper
	closers  []io.Closer

	mu      sync.Mutex // guards what follows
	errs    []error    // of what could not be done until the end
	last    Checkpoint
	failing error // of the last try to make a checkpoint
}

var errEnding = errors.New("the log is closing")

// Attach has checkpoints signed from now on, the first over everything that was
// recorded before, and records delivered to sinks, each from where it was the
// last time. Checkpoints are anchored at Config.Anchor or, without one, at the
// sinks that are Anchors. A nil signer leaves the log unsigned. Attach may be
// called once, and takes over the sinks: Close closes them.
func (l *Log) Attach(signer Signer, sinks ...Sink) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return fmt.Errorf("%w: %s", ErrClosed, l.dir)
	case l.attached != nil:
		return errors.New("auditlog: Attach was called before")
	}
	anchor := l.cfg.Anchor
	for _, sink := range sinks {
		if a, ok := sink.(Anchor); ok && anchor == nil {
			anchor = a
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &attached{logger: l.cfg.Logger, cancel: cancel, stopSeal: make(chan struct{}), stopShip: make(chan struct{}), ask: make(chan chan<- error), unsealer: make(chan struct{})}
	all := sinks
	if anchor != nil {
		all = append([]Sink{anchorSink{anchor, l.forked}}, sinks...)
	}
	for _, sink := range all {
		s, err := newShipper(l.fs, sink)
		if err != nil {
			cancel(err)
			for _, s := range a.sinks {
				s.lock.Close()
			}
			return err
		}
		s.logger, s.scrub, s.changes, s.f.limit, s.f.damage = l.cfg.Logger, l.scrubbed, l.changes, l.durable, l.damaged
		a.sinks = append(a.sinks, s)
		if c, ok := sink.(io.Closer); ok {
			a.closers = append(a.closers, c)
		}
	}
	for _, s := range a.sinks {
		a.shippers.Go(func() {
			defer s.lock.Close()
			a.keep(ctx, "deliver to "+s.info.Name, func() error { return s.run(ctx, a.stopShip) })
		})
	}
	if signer == nil {
		close(a.unsealer)
	} else {
		a.sealer.Go(func() {
			defer close(a.unsealer)
			a.keep(ctx, "make checkpoints", func() error {
				s := &sealer{l: l, signer: signer, anchor: anchor}
				defer s.f.close()
				return s.run(ctx, a.stopSeal, a.ask)
			})
		})
	}
	l.attached = a
	return nil
}

// Seal has a checkpoint signed over everything that was recorded before it was
// called, as Close does, and returns when that is recorded too. It is for those
// who take the key away before the log can be closed. Without a signer it does
// nothing. When ctx ends first, the error wraps its cause, and the checkpoint is
// still made if it can be.
func (l *Log) Seal(ctx context.Context) error {
	l.mu.Lock()
	a := l.attached
	l.mu.Unlock()
	if a == nil {
		return nil
	}
	done := make(chan error, 1)
	select {
	case a.ask <- done:
	case <-a.unsealer:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("auditlog: sign the checkpoint: %w", context.Cause(ctx))
	}
	select {
	case err := <-done:
		return err
	case <-a.unsealer:
		select {
		case err := <-done:
			return err
		default:
			return fmt.Errorf("%w: the log was closed first", ErrClosed)
		}
	case <-ctx.Done():
		return fmt.Errorf("auditlog: sign the checkpoint: %w", context.Cause(ctx))
	}
}

// keep runs what must not end before it is told to: a disk that is full now
// may have space later.
func (a *attached) keep(ctx context.Context, what string, run func() error) {
	for try := 0; ; try++ {
		err := run()
		if err == nil || errors.Is(err, errEnding) || errors.Is(err, ErrSignerGone) {
			return
		}
		err = fmt.Errorf("auditlog: %s: %w", what, err)
		a.logger.Error("part of the audit log fails, and is tried again", "error", err)
		a.mu.Lock()
		a.failing = err
		a.mu.Unlock()
		if pause(ctx, backoff(try)) != nil {
			a.mu.Lock()
			a.errs = append(a.errs, err)
			a.mu.Unlock()
			return
		}
	}
}

// close seals and delivers what is left, for as long as ctx allows, and for
// ten seconds if it never ends.
func (a *attached) close(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	over := context.AfterFunc(ctx, func() { a.cancel(errEnding) })
	defer over()
	close(a.stopSeal)
	a.sealer.Wait()
	close(a.stopShip)
	a.shippers.Wait()
	a.cancel(errEnding)
	a.mu.Lock()
	errs := a.errs
	a.mu.Unlock()
	for _, c := range a.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// current is what is durable now.
func (l *Log) current() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// durable reports whether a record may be read: one of the batch that is being
// written may still be taken back.
func (l *Log) durable(epoch string, seq uint64) bool {
	s := l.current()
	return epoch != s.epoch || seq <= s.seq
}

// changes is closed when something becomes durable.
func (l *Log) changes() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *Log) scrubbed(text string) string {
	if scrub := l.scrubber(); scrub != nil {
		return scrub(text)
	}
	return text
}

// damaged notes, once each, what a reader could not read.
func (l *Log) damaged(text string) {
	l.mu.Lock()
	for _, known := range l.damage {
		if known == text {
			l.mu.Unlock()
			return
		}
	}
	l.damage = append(l.damage, text)
	l.mu.Unlock()
	l.cfg.Logger.Error("the audit log is damaged", "dir", l.dir, "found", text)
	l.tell(Event{
		Severity: Alert, Category: Security, Action: "auditlog.damaged", Outcome: Failure, Attributes: map[string]string{"found": text},
	}, gap{})
}

// forked notes that somebody else has anchored a checkpoint of this log.
func (l *Log) forked(name string) {
	l.damaged("another checkpoint is anchored as " + name + " than the one of this log")
}

func (l *Log) sealed(c Checkpoint, err error) {
	l.mu.Lock()
	a := l.attached
	l.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failing = err; err == nil {
		a.last = c
	}
}

// ShipConfig is what [Ship] delivers, and where to.
type ShipConfig struct {
	Sinks  []Sink
	Anchor Anchor              // nil: the first sink that is one
	Poll   time.Duration       // how often to look for more; 0: a quarter of a second
	Scrub  func(string) string // takes secrets out of what destinations say; nil: nothing
	Once   bool                // return when everything is delivered, instead of waiting for more
	Logger *slog.Logger        // nil discards
}

// Ship delivers the log in dir, which another process writes, until ctx ends;
// then it returns nil. Two processes cannot deliver to sinks of the same name.
func Ship(ctx context.Context, dir string, cfg ShipConfig) error {
	fsys, err := openDir(dir)
	if err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	poll := cmp.Or(cfg.Poll, 250*time.Millisecond)
	anchor := cfg.Anchor
	for _, sink := range cfg.Sinks {
		if a, ok := sink.(Anchor); ok && anchor == nil {
			anchor = a
		}
	}
	all := cfg.Sinks
	if anchor != nil {
		all = append([]Sink{anchorSink{anchor, func(name string) {
			cfg.Logger.Error("another checkpoint is anchored than the one of this log", "name", name)
		}}}, all...)
	}
	stop := make(chan struct{})
	if cfg.Once {
		close(stop)
	}
	var shippers []*shipper
	for _, sink := range all {
		s, err := newShipper(fsys, sink)
		if err != nil {
			for _, s := range shippers {
				s.lock.Close()
			}
			return err
		}
		s.logger, s.scrub = cfg.Logger, cfg.Scrub
		s.changes = func() <-chan struct{} {
			changed := make(chan struct{})
			if !cfg.Once {
				time.AfterFunc(poll, func() { close(changed) })
			}
			return changed
		}
		s.settle = func(segment string) error { return settle(fsys, segment) }
		s.f.damage = func(text string) { cfg.Logger.Error("the audit log is damaged", "dir", dir, "found", text) }
		shippers = append(shippers, s)
	}
	var running sync.WaitGroup
	errs := make([]error, len(shippers))
	for i, s := range shippers {
		running.Go(func() {
			defer s.lock.Close()
			for try := 0; ; try++ {
				err := s.run(ctx, stop)
				if err == nil || ctx.Err() != nil {
					return
				}
				err = fmt.Errorf("auditlog: deliver %s to %s: %w", dir, s.info.Name, err)
				if cfg.Once {
					errs[i] = err
					return
				}
				// The others go on, and so does this when what it needs is back.
				wait := backoff(try)
				cfg.Logger.Error("part of the delivery fails, and is tried again", "error", err, "retry_in", wait)
				if pause(ctx, wait) != nil {
					return
				}
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// settle makes durable what was read of a segment: the writer may not have
// come to it yet, and what is delivered must not be lost here.
func settle(fsys filesystem, segment string) error {
	f, err := fsys.OpenFile(segment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since: then it was durable
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
