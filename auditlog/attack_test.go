package auditlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// Whoever is root can put things into the directory that no log makes. None of
// them may be taken for a segment, or keep the verifier from an answer.
func TestThingsThatAreNoSegments(t *testing.T) {
	base, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	sealedLog(t, base, anchors, signer, 700)
	first := newForger(t, base).firsts[1]
	for name, put := range map[string]func(file string) error{
		"a symlink to where it was moved": func(file string) error {
			return errorsOf(os.Rename(file, file+".moved"), os.Symlink(file+".moved", file))
		},
		"a symlink to nowhere": func(file string) error { return errorsOf(os.Remove(file), os.Symlink("nowhere", file)) },
		"a pipe":               func(file string) error { return errorsOf(os.Remove(file), syscall.Mkfifo(file, 0o600)) },
		"a directory":          func(file string) error { return errorsOf(os.Remove(file), os.Mkdir(file, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, base)
			must(t, put(newForger(t, dir).segments()[1]))
			r := verify(t, dir, anchors, public)
			if len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.Dropped || r.Findings[0].Seq != first || !hasNote(r, "no regular file") {
				t.Errorf("%v %q", r.Err(), r.Notes)
			}
			// The writer goes on, and readers come to an end.
			l := openT(t, dir, auditlog.Config{})
			must(t, l.Append(t.Context(), event("later")))
			must(t, l.Close(t.Context()))
			last := ""
			for e, err := range auditlog.Read(os.DirFS(dir), nil) {
				must(t, err)
				if e.Kind == auditlog.KindEvent {
					last = string(e.JSON)
				}
			}
			if !strings.Contains(last, `"later"`) {
				t.Errorf("%s", last)
			}
		})
	}
	t.Run("a file that was grown", func(t *testing.T) {
		dir := copyDir(t, base)
		files := newForger(t, dir).segments()
		for _, file := range []string{files[1], files[len(files)-1]} {
			must(t, os.Truncate(file, 1<<30+1))
		}
		if r := verify(t, dir, anchors, public); r.Err() != nil || r.Events != 700 || !hasNote(r, "larger than any segment") {
			t.Errorf("%v %q", r.Err(), r.Notes)
		}
		l := openT(t, dir, auditlog.Config{MaxBytes: 8 << 30})
		must(t, l.Append(t.Context(), event("later")))
		if len(l.Status().Damage) != 1 {
			t.Errorf("%v", l.Status().Damage)
		}
		must(t, l.Close(t.Context()))
		if r := verify(t, dir, anchors, public); r.Err() != nil || r.Events != 702 {
			t.Errorf("%v, %d events", r.Err(), r.Events)
		}
	})
	t.Run("pipes in the place of the mark, the cursor and an anchor", func(t *testing.T) {
		dir, anchors := copyDir(t, base), copyDir(t, anchors)
		names, _ := filepath.Glob(filepath.Join(anchors, "*.seal"))
		for _, file := range []string{filepath.Join(dir, "clean"), filepath.Join(dir, "cursors", "anchor.json"), names[3]} {
			must(t, errorsOf(os.Remove(file), syscall.Mkfifo(file, 0o600)))
		}
		r := verify(t, dir, anchors, public)
		if len(r.Findings) == 0 || slices.ContainsFunc(r.Findings, func(f auditlog.Finding) bool { return f.Damage != auditlog.AnchorMissing }) {
			t.Errorf("%+v", r.Findings)
		}
	})
}

// errorsOf returns the first of them.
func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func hasNote(r *auditlog.Report, text string) bool {
	return slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, text) })
}

// lastSeal is the place of the last checkpoint, which no other one covers.
func (f *forger) lastSeal() int {
	for i := len(f.records) - 1; i >= 0; i-- {
		if f.records[i].Kind == auditlog.KindCheckpoint {
			return i
		}
	}
	f.t.Fatal("no checkpoint")
	return 0
}

// What is not signed in a checkpoint is anchored too; and a record before the
// first is none.
func TestWhatNoCheckpointCovers(t *testing.T) {
	base, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	thief, _ := key(t)
	sealedLog(t, base, anchors, signer, 120)
	change := func(f *forger, how func(s *auditlog.Seal)) uint64 {
		r := &f.records[f.lastSeal()]
		s, _, err := auditlog.ParseSeal(r.Payload)
		must(f.t, err)
		how(s)
		r.Payload, err = json.Marshal(s)
		must(f.t, err)
		f.rechain()
		f.write()
		return r.Seq
	}
	for name, m := range map[string]struct {
		want   auditlog.Damage
		mutate func(f *forger) uint64
	}{
		"its hashes":    {auditlog.Edited, func(f *forger) uint64 { return change(f, func(s *auditlog.Seal) { s.Leaves[3] ^= 1 }) }},
		"its key":       {auditlog.Edited, func(f *forger) uint64 { return change(f, func(s *auditlog.Seal) { s.Key[3] ^= 1 }) }},
		"its signature": {auditlog.Edited, func(f *forger) uint64 { return change(f, func(s *auditlog.Seal) { s.Signature[3] ^= 1 }) }},
		"something beside it": {auditlog.Edited, func(f *forger) uint64 {
			r := &f.records[f.lastSeal()]
			r.Payload = append(r.Payload[:len(r.Payload)-1], `,"more":1}`...)
			f.rechain()
			f.write()
			return r.Seq
		}},
		"who signs the same": {auditlog.Resealed, func(f *forger) uint64 {
			return change(f, func(s *auditlog.Seal) {
				var err error
				s.Signature, s.Key, err = thief.Sign(f.t.Context(), append([]byte("phoenix audit checkpoint v1\n"), s.Checkpoint...))
				must(f.t, err)
			})
		}},
		"a record with the number 0": {auditlog.Edited, func(f *forger) uint64 {
			r := f.records[f.find("action.0007")]
			r.Seq, r.Batch, r.Chain = 0, 0, auditlog.FirstChain(f.epoch)
			must(f.t, os.WriteFile(filepath.Join(f.dir, f.epoch, fmt.Sprintf("%020d.seg", 0)), r.Frame(), 0o600))
			return 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForger(t, copyDir(t, base))
			seq := m.mutate(f)
			if r := verify(t, f.dir, anchors, public); len(r.Findings) == 0 || r.Findings[0].Damage != m.want || r.Findings[0].Seq != seq {
				t.Errorf("want %s at %d: %+v", m.want, seq, r.Findings)
			}
		})
	}
}

// A log that was never anchored excuses nothing: else a new one could be put
// into the place of any. A host that was made again is excused by its first
// anchored checkpoint, and an archive never.
func TestAnotherLogInItsPlace(t *testing.T) {
	first, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	sealedLog(t, first, anchors, signer, 100)
	missing := newForger(t, first).epoch
	before := copyDir(t, anchors)
	second := t.TempDir()
	sealedLog(t, second, anchors, signer, 50)

	check := func(name, dir, anchors string, all bool, want auditlog.Damage) {
		t.Helper()
		r, err := auditlog.Verify(t.Context(), os.DirFS(dir), auditlog.VerifyConfig{Keys: keysOf(public), Anchors: os.DirFS(anchors), AllEpochs: all})
		must(t, err)
		switch {
		case want == "" && r.Err() == nil && hasNote(r, missing):
		case want != "" && len(r.Findings) > 0 && r.Findings[0].Damage == want && r.Findings[0].Epoch == missing:
		default:
			t.Errorf("%s: want %q: %+v, notes %q", name, want, r.Findings, r.Notes)
		}
	}
	check("a host made again", second, anchors, false, "")
	check("the same as an archive", second, anchors, true, auditlog.Dropped)
	check("signed, and not anchored", second, before, false, auditlog.Truncated)
	unsigned := t.TempDir()
	l := openT(t, unsigned, auditlog.Config{Service: "mcp-hr"})
	must(t, l.Append(t.Context(), event("nothing.happened")))
	must(t, l.Close(t.Context()))
	check("neither signed nor anchored", unsigned, before, false, auditlog.Truncated)
}

// Epochs in each other's place, down to what their first records say.
func TestEpochsSwappedToFit(t *testing.T) {
	first, second, anchors := t.TempDir(), t.TempDir(), t.TempDir()
	signer, public := key(t)
	sealedLog(t, first, anchors, signer, 100)
	sealedLog(t, second, anchors, signer, 60)
	a, b := newForger(t, first), newForger(t, second)
	dir := t.TempDir()
	for _, swap := range []struct {
		f  *forger
		as string
	}{{a, b.epoch}, {b, a.epoch}} {
		f := *swap.f
		was := f.epoch
		f.records = slices.Clone(f.records)
		f.records[0].Payload = bytes.ReplaceAll(f.records[0].Payload, []byte(was), []byte(swap.as))
		f.epoch, f.firsts = swap.as, f.firsts[:1]
		f.rechain()
		var data []byte
		for _, r := range f.records {
			data = append(data, r.Frame()...)
		}
		must(t, os.Mkdir(filepath.Join(dir, swap.as), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, swap.as, fmt.Sprintf("%020d.seg", 1)), data, 0o600))
	}
	if r := verify(t, dir, anchors, public); len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.Reordered || r.Findings[0].Seq != 1 {
		t.Errorf("%+v", r.Findings)
	}
}

// A growing is a log that somebody writes to whenever it is read.
type growing struct {
	fs.FS
	mu   sync.Mutex
	grow func()
}

func (g *growing) Open(name string) (fs.File, error) {
	g.mu.Lock()
	if g.grow != nil && strings.HasSuffix(name, ".seg") {
		g.grow()
	}
	g.mu.Unlock()
	return g.FS.Open(name)
}

// A log that is written to, anchored and pruned while it is verified is sound.
func TestALogThatGoesOnWhileItIsVerified(t *testing.T) {
	signer, public := key(t)
	open := func(t *testing.T) (*auditlog.Log, string, string) {
		dir, anchors := t.TempDir(), t.TempDir()
		anchor, err := auditlog.DirAnchor(anchors)
		must(t, err)
		l := openT(t, dir, auditlog.Config{SegmentSize: 64 << 10, MaxBytes: 256 << 10, Anchor: anchor, CheckpointRecords: 4, CheckpointEvery: time.Millisecond,
			Full: map[auditlog.Category]auditlog.Policy{auditlog.DataAccess: auditlog.BlockFor(10 * time.Second)}})
		must(t, l.Attach(signer, &fakeSink{info: auditlog.SinkInfo{Name: "s"}}))
		return l, dir, anchors
	}
	anchored := func(t *testing.T, l *auditlog.Log) {
		must(t, l.Seal(t.Context()))
		for s := l.Status(); s.Anchored < s.Sealed; s = l.Status() {
			if t.Context().Err() != nil {
				t.Fatal("it is never anchored")
			}
		}
	}
	t.Run("anchored", func(t *testing.T) {
		l, dir, anchors := open(t)
		must(t, l.Append(t.Context(), event("before")))
		anchored(t, l)
		g := &growing{FS: os.DirFS(dir), grow: func() {
			must(t, l.Append(t.Context(), event("meanwhile")))
			anchored(t, l)
		}}
		r, err := auditlog.Verify(t.Context(), g, auditlog.VerifyConfig{Keys: keysOf(public), Anchors: os.DirFS(anchors)})
		must(t, err)
		if r.Err() != nil || r.Events < 2 {
			t.Errorf("%v, %d events", r.Err(), r.Events)
		}
		must(t, l.Close(t.Context()))
	})
	t.Run("pruned", func(t *testing.T) {
		l, dir, anchors := open(t)
		for range 30 {
			must(t, l.Append(t.Context(), big()))
		}
		anchored(t, l)
		g := &growing{FS: os.DirFS(dir)}
		g.grow = func() {
			g.grow = nil
			for range 40 { // more than there is room for
				must(t, l.Append(t.Context(), big()))
			}
			must(t, l.Close(context.WithoutCancel(t.Context())))
		}
		r, err := auditlog.Verify(t.Context(), g, auditlog.VerifyConfig{Keys: keysOf(public), Anchors: os.DirFS(anchors)})
		must(t, err)
		if r.Err() != nil || r.Epochs[0].First == 1 || !hasNote(r, "removed by the log itself") {
			t.Errorf("%v %+v %q", r.Err(), r.Epochs, r.Notes)
		}
	})
}

// Somebody says of events that they are delivered. Where the cursor stands behind
// the end nothing would ever be; elsewhere the count tells.
func TestCursorsThatAreMoved(t *testing.T) {
	for name, cursor := range map[string]string{
		"behind the end":   `{"epoch":"EPOCH","next":500,"delivered":499}`,
		"to a later epoch": `{"epoch":"ffffffff-ffff-7fff-bfff-ffffffffffff","next":1,"delivered":0}`,
		"over some":        `{"epoch":"EPOCH","next":12,"delivered":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			deliver(t, dir, 10)
			file := filepath.Join(dir, "cursors", "s.json")
			must(t, errorsOf(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(strings.Replace(cursor, "EPOCH", newForger(t, dir).epoch, 1)), 0o600)))
			status, err := auditlog.Inspect(os.DirFS(dir))
			must(t, err)
			if len(status.Damage) != 1 || !strings.Contains(status.Damage[0], "the cursor of s") {
				t.Errorf("%q", status.Damage)
			}
			if name == "over some" {
				return
			}
			s := &fakeSink{info: auditlog.SinkInfo{Name: "s"}}
			must(t, auditlog.Ship(t.Context(), dir, auditlog.ShipConfig{Sinks: []auditlog.Sink{s}, Once: true}))
			if got := s.has(); len(got) != 10 {
				t.Errorf("delivered: %v", got)
			}
		})
	}
}
