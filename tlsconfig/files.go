package tlsconfig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"
)

// A FilesConfig names PEM files.
type FilesConfig struct {
	Cert   string // the certificate, then those between it and the root; required
	Key    string // its private key; empty means that Cert holds it too
	Bundle string // the authorities to trust; required
	// Interval is the time between looks at the files; zero means five seconds.
	Interval time.Duration
	Logger   *slog.Logger // nil discards
}

// Files is an Identity from PEM files that somebody else renews.
//
// The files are looked at from time to time. When one has changed, all are
// read, and become current together if they fit together and did not change
// meanwhile. Otherwise what was good stays, Err says why, and it is tried again
// at each look. So the files may be replaced one after the other. Each should
// be written under another name and renamed, as it is with Kubernetes' mounts.
type Files struct {
	Live
	cfg  FilesConfig
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	seen   [3]fs.FileInfo // of what is current
	err    error
	warned bool
}

// OpenFiles reads the files, and follows them until Close.
func OpenFiles(ctx context.Context, cfg FilesConfig) (*Files, error) {
	if cfg.Cert == "" || cfg.Bundle == "" {
		return nil, errors.New("tlsconfig: FilesConfig needs the paths Cert and Bundle")
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("tlsconfig: open files: %w", err)
	}
	if cfg.Key == "" {
		cfg.Key = cfg.Cert
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Files{cfg: cfg}
	if err := f.Reload(); err != nil {
		return nil, err
	}
	ctx, f.stop = context.WithCancel(context.Background())
	f.done.Go(func() { f.run(ctx) })
	return f, nil
}

// Close stops following the files. What is current stays so.
func (f *Files) Close() {
	f.stop()
	f.done.Wait()
}

// Err is why what is in the files is not what is current, nil if it is.
func (f *Files) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *Files) run(ctx context.Context) {
	tick := time.NewTicker(f.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = f.Reload() // it is logged, and kept for Err
		}
	}
}

// Reload looks at the files now, for instance at SIGHUP.
func (f *Files) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.err
	f.err = f.look()
	switch {
	case f.err != nil && (before == nil || before.Error() != f.err.Error()):
		f.cfg.Logger.Error("the files are no new identity; the last good one stays", slog.Any("error", f.err), slog.Any("current", f.Current()))
	case f.err == nil && before != nil:
		f.cfg.Logger.Info("the files are good again", slog.Any("current", f.Current()))
	}
	return f.err
}

func (f *Files) look() error {
	now, err := f.stat()
	if err != nil {
		return err
	}
	if same(now, f.seen) {
		return nil
	}
	m, err := f.read()
	if err != nil {
		return fmt.Errorf("%w (files %s, %s, %s)", err, f.cfg.Cert, f.cfg.Key, f.cfg.Bundle)
	}
	after, err := f.stat()
	if err != nil {
		return err
	}
	if !same(now, after) {
		return fmt.Errorf("tlsconfig: the files %s, %s, %s changed while they were read; they are read again", f.cfg.Cert, f.cfg.Key, f.cfg.Bundle)
	}
	if mode := now[1].Mode(); mode&0o007 != 0 && runtime.GOOS != "windows" && !f.warned {
		f.warned = true
		f.cfg.Logger.Warn("every user of this machine can reach the private key; set its mode to 0640 or 0600",
			slog.String("file", f.cfg.Key), slog.String("mode", mode.String()))
	}
	f.seen = now
	f.Publish(m)
	return nil
}

func (f *Files) stat() (now [3]fs.FileInfo, err error) {
	for i, path := range []string{f.cfg.Cert, f.cfg.Key, f.cfg.Bundle} {
		if now[i], err = os.Stat(path); err != nil {
			return now, fmt.Errorf("tlsconfig: %w", err)
		}
	}
	return now, nil
}

func same(a, b [3]fs.FileInfo) bool {
	for i := range a {
		if a[i] == nil || b[i] == nil || !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() {
			return false
		}
	}
	return true
}

func (f *Files) read() (*Material, error) {
	var texts [3][]byte
	for i, path := range []string{f.cfg.Cert, f.cfg.Key, f.cfg.Bundle} {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("tlsconfig: %w", err)
		}
		texts[i] = text
		if path == f.cfg.Key {
			defer clear(text)
		}
	}
	return ParseMaterial(texts[0], texts[1], texts[2])
}
