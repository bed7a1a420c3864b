package auditlog_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

func big() auditlog.Event {
	return auditlog.Event{Category: auditlog.DataAccess, Action: "big", Attributes: map[string]string{"x": strings.Repeat("x", 8000)}}
}

// fill appends until the log is full.
func fill(t testing.TB, l *auditlog.Log) (kept int) {
	t.Helper()
	for range 1000 {
		err := l.Append(t.Context(), big())
		if errors.Is(err, auditlog.ErrFull) {
			return kept
		}
		must(t, err)
		kept++
	}
	t.Fatal("it is never full")
	return 0
}

func TestFull(t *testing.T) {
	bounded := auditlog.Config{SegmentSize: 64 << 10, MaxBytes: 256 << 10}

	t.Run("fails closed", func(t *testing.T) {
		dir := t.TempDir()
		l := openT(t, dir, bounded)
		kept := fill(t, l)
		if err := l.Append(t.Context(), big()); !errors.Is(err, auditlog.ErrFull) || !strings.Contains(err.Error(), "raise MaxBytes") {
			t.Errorf("%v", err)
		}
		if n := l.Status().Dropped[auditlog.DataAccess]; n != 2 {
			t.Errorf("%d are counted", n)
		}
		must(t, l.Close(t.Context()))
		if got := len(actions(t, dir)); got != kept {
			t.Errorf("%d events, want %d", got, kept)
		}
		size := int64(0)
		files, _ := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
		for _, file := range files {
			info, err := os.Stat(file)
			must(t, err)
			size += info.Size()
		}
		if size > bounded.MaxBytes {
			t.Errorf("it takes %d bytes", size)
		}
	})
	t.Run("fails open, and says what is missing", func(t *testing.T) {
		dir := t.TempDir()
		signer, public := key(t)
		cfg := bounded
		cfg.Full = map[auditlog.Category]auditlog.Policy{auditlog.System: auditlog.FailOpen}
		l := openT(t, dir, cfg)
		must(t, l.Attach(signer))
		fill(t, l)
		for range 30 {
			must(t, l.Append(t.Context(), auditlog.Event{Category: auditlog.System, Action: "dropped", Attributes: map[string]string{"x": strings.Repeat("x", 8000)}}))
		}
		must(t, l.Close(t.Context()))
		status, err := auditlog.Inspect(os.DirFS(dir))
		must(t, err)
		if status.Dropped[auditlog.System] != 30 || status.Unsealed != 0 {
			t.Errorf("%+v", status)
		}
		if r := verify(t, dir, "", public); r.Err() != nil {
			t.Error(r.Err())
		}
		if got := actions(t, dir); slices.Contains(got, "dropped") || !slices.Contains(got, "auditlog.gap") {
			t.Errorf("%v", got)
		}
	})
	t.Run("blocks for a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := bounded
			cfg.Full = map[auditlog.Category]auditlog.Policy{auditlog.System: auditlog.BlockFor(time.Minute)}
			l, err := auditlog.OpenOn(newSimDisk(), cfg)
			must(t, err)
			fill(t, l)
			e := big()
			e.Category = auditlog.System
			began := time.Now()
			if err := l.Append(t.Context(), e); !errors.Is(err, auditlog.ErrFull) || time.Since(began) != time.Minute {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			must(t, l.Close(t.Context()))
		})
	})
}

// What is delivered and anchored makes room; what is not, never does.
func TestRetention(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	anchor, err := auditlog.DirAnchor(anchors)
	must(t, err)
	cfg := auditlog.Config{SegmentSize: 64 << 10, MaxBytes: 256 << 10, Anchor: anchor, CheckpointRecords: 4, CheckpointEvery: 5 * time.Millisecond,
		Full: map[auditlog.Category]auditlog.Policy{auditlog.DataAccess: auditlog.BlockFor(2 * time.Minute)}}
	l := openT(t, dir, cfg)
	sink := &fakeSink{info: auditlog.SinkInfo{Name: "s"}}
	must(t, l.Attach(signer, sink))
	for range 120 { // a megabyte
		must(t, l.Append(t.Context(), big()))
	}
	must(t, l.Close(t.Context()))
	if n := len(slices.DeleteFunc(sink.has(), func(s string) bool { return s != "big" })); n != 120 {
		t.Errorf("%d were delivered", n)
	}
	r := verify(t, dir, anchors, public)
	if r.Err() != nil || r.Epochs[0].First == 1 {
		t.Errorf("%v %+v", r.Err(), r.Epochs)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
	must(t, os.Remove(files[0]))
	if r := verify(t, dir, anchors, public); len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.Dropped {
		t.Errorf("one more removed, by somebody else: %v", r.Err())
	}
}

func TestAFileThatIsRemovedOrReplacedIsNoticed(t *testing.T) {
	for name, tamper := range map[string]func(file string) error{
		"removed": os.Remove,
		"replaced": func(file string) error {
			return errors.Join(os.Remove(file), os.WriteFile(file, []byte("nothing happened"), 0o600))
		},
		"renamed": func(file string) error { return os.Rename(file, file+".old") },
		"with its directory": func(file string) error {
			return os.RemoveAll(filepath.Dir(file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			signer, public := key(t)
			l := openT(t, dir, auditlog.Config{})
			must(t, l.Append(t.Context(), event("before")))
			files, _ := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
			must(t, tamper(files[0]))
			must(t, l.Append(t.Context(), event("after")))
			must(t, l.Append(t.Context(), event("later")))
			must(t, l.Attach(signer))
			must(t, l.Close(t.Context()))
			if got := actions(t, dir); !slices.Equal(slices.DeleteFunc(slices.Clone(got), func(a string) bool { return a == "auditlog.file_replaced" }), []string{"before", "after", "later"}) || len(got) != 4 {
				t.Errorf("%v", got)
			}
			if len(l.Status().Damage) != 1 {
				t.Errorf("%v", l.Status().Damage)
			}
			if r := verify(t, dir, "", public); r.Err() != nil {
				t.Error(r.Err())
			}
		})
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	l := openT(t, dir, auditlog.Config{})
	if _, err := auditlog.Open(dir, auditlog.Config{}); !errors.Is(err, auditlog.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	must(t, l.Append(t.Context(), event("x")))
	must(t, l.Close(t.Context()))
	must(t, openT(t, dir, auditlog.Config{}).Close(t.Context()))
	if err := l.Append(t.Context(), event("x")); !errors.Is(err, auditlog.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestDirectoriesThatAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	open := filepath.Join(t.TempDir(), "open")
	must(t, os.Mkdir(open, 0o700))
	must(t, os.Chmod(open, 0o777))
	for dir, remedy := range map[string]string{"": "no directory", file: "local disk", open: "chmod go-w", "/proc/phoenix-audit": "local disk"} {
		if _, err := auditlog.Open(dir, auditlog.Config{}); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: %v", dir, err)
		}
	}
	for kind, want := range map[uint32]string{0x6969: "NFS", 0xfe534d42: "SMB", 0xef53: "", 0x58465342: "", 0x01021994: ""} {
		if got := auditlog.NetworkName(kind); got != want {
			t.Errorf("%#x is %q", kind, got)
		}
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	for _, cfg := range []auditlog.Config{
		{MaxEvent: 10}, {MaxEvent: 5 << 20}, {SegmentSize: 1}, {SegmentSize: 2 << 30}, {MaxBytes: 1 << 20}, {Reserve: 1}, {SegmentSize: 64 << 10, Reserve: 64 << 10},
		{CheckpointRecords: -1}, {CheckpointRecords: 20000}, {CheckpointEvery: -1}, {Heartbeat: -1}, {Retain: -1}, {Sensitive: []string{"user"}},
		{Full: map[auditlog.Category]auditlog.Policy{auditlog.System: -2}},
	} {
		if _, err := auditlog.Open(t.TempDir(), cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// Damage is found when the log is opened, is recorded, and stays for the
// verifier to see: the log goes on.
func TestDamageIsQuarantined(t *testing.T) {
	for name, damage := range map[string]func(data []byte) []byte{
		"a flipped byte":    func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"the end cut off":   func(data []byte) []byte { return data[:len(data)-500] },
		"all overwritten":   func(data []byte) []byte { return []byte(strings.Repeat("gone ", len(data)/5)) },
		"all zero":          func(data []byte) []byte { return make([]byte, len(data)) },
		"the first changed": func(data []byte) []byte { data[70] ^= 1; return data },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openT(t, dir, auditlog.Config{})
			for range 20 {
				must(t, l.Append(t.Context(), event("before")))
			}
			must(t, l.Close(t.Context()))
			files, _ := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
			data, err := os.ReadFile(files[0])
			must(t, err)
			must(t, os.WriteFile(files[0], damage(data), 0o600))
			l = openT(t, dir, auditlog.Config{})
			must(t, l.Append(t.Context(), event("after")))
			if len(l.Status().Damage) == 0 {
				t.Error("it is not noticed")
			}
			must(t, l.Close(t.Context()))
			var got []string
			for e, err := range auditlog.Read(os.DirFS(dir), nil) {
				must(t, err)
				if event, err := e.Event(); err == nil && e.Kind == auditlog.KindEvent {
					got = append(got, event.Action)
				}
			}
			if !slices.Contains(got, "auditlog.damaged") || got[len(got)-1] != "after" {
				t.Errorf("%v", got)
			}
			if r := verify(t, dir, ""); r.Err() == nil {
				t.Error("the verifier does not see it")
			}
		})
	}
}
