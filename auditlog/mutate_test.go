package auditlog_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/auditlog"
)

// A forger is an attacker who is root and knows the format: it has the records
// of an epoch, and writes them back with what it can compute made to fit.
type forger struct {
	t       testing.TB
	dir     string
	epoch   string
	firsts  []uint64 // of the segments
	records []auditlog.RawRecord
}

func newForger(t testing.TB, dir string) *forger {
	t.Helper()
	f := &forger{t: t, dir: dir}
	for _, file := range f.segments() {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		records := auditlog.ParseSegment(data)
		f.firsts = append(f.firsts, records[0].Seq)
		f.records = append(f.records, records...)
	}
	f.epoch = filepath.Base(filepath.Dir(f.segments()[0]))
	return f
}

func (f *forger) segments() []string {
	files, err := filepath.Glob(filepath.Join(f.dir, "*", "*.seg"))
	if err != nil || len(files) == 0 {
		f.t.Fatal("no segments", err)
	}
	return files
}

// find is the place of the event with an action.
func (f *forger) find(action string) int {
	i := slices.IndexFunc(f.records, func(r auditlog.RawRecord) bool { return bytes.Contains(r.Payload, []byte(`"action":"`+action+`"`)) })
	if i < 0 {
		f.t.Fatalf("no event %s", action)
	}
	return i
}

// rechain gives every record the number of its place and the chain that fits.
func (f *forger) rechain() {
	chain := auditlog.FirstChain(f.epoch)
	for i := range f.records {
		r := &f.records[i]
		r.Seq = uint64(i + 1)
		chain = r.Link(chain)
		r.Chain = chain
	}
}

// reseal makes every checkpoint anew with a key.
func (f *forger) reseal(signer auditlog.Signer) {
	var previous auditlog.Hash
	chain := auditlog.FirstChain(f.epoch)
	chains := []auditlog.Hash{chain}
	for i := range f.records {
		r := &f.records[i]
		r.Seq = uint64(i + 1)
		if r.Kind == auditlog.KindCheckpoint {
			_, c, err := auditlog.ParseSeal(r.Payload)
			if err != nil {
				f.t.Fatal(err)
			}
			var tree, leaves []auditlog.Hash
			for _, r := range f.records[c.Segment-1 : c.To] {
				if tree = append(tree, r.Leaf()); r.Seq >= c.From {
					leaves = append(leaves, r.Leaf())
				}
			}
			c.Root, c.Head, c.Previous = auditlog.RootOf(tree), chains[c.To], previous
			r.Payload, previous = auditlog.MakeSeal(signer, c, leaves)
		}
		chain = r.Link(chain)
		r.Chain = chain
		chains = append(chains, chain)
	}
}

// write replaces the segments.
func (f *forger) write() {
	for _, file := range f.segments() {
		if err := os.Remove(file); err != nil {
			f.t.Fatal(err)
		}
	}
	for i, first := range f.firsts {
		var data []byte
		for _, r := range f.records {
			if r.Seq >= first && (i+1 == len(f.firsts) || r.Seq < f.firsts[i+1]) {
				data = append(data, r.Frame()...)
			}
		}
		if err := os.WriteFile(filepath.Join(f.dir, f.epoch, fmt.Sprintf("%020d.seg", first)), data, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Every change within what is anchored is found, is called by its name, and
// the first record that it touches is named.
func TestMutationsAreCaught(t *testing.T) {
	base, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	thief, _ := key(t)
	sealedLog(t, base, anchors, signer, 700)
	at := func(f *forger, action string) uint64 { return f.records[f.find(action)].Seq }

	// Each mutation returns the first bad record, 0 if that does not matter.
	for name, m := range map[string]struct {
		want    auditlog.Damage
		mutate  func(f *forger) uint64
		withOut bool // is to be caught without anchors too
	}{
		"an edit, CRC made to fit": {auditlog.Edited, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records[i].Payload = bytes.Replace(f.records[i].Payload, []byte("success"), []byte("failure"), 1)
			f.write()
			return f.records[i].Seq
		}, true},
		"an edit, CRC and chain made to fit": {auditlog.Edited, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records[i].Payload = bytes.Replace(f.records[i].Payload, []byte("success"), []byte("blocked"), 1)
			f.rechain()
			f.write()
			return f.records[i].Seq
		}, true},
		"a flipped bit": {auditlog.Edited, func(f *forger) uint64 {
			for _, file := range f.segments() {
				data, err := os.ReadFile(file)
				must(f.t, err)
				if i := bytes.Index(data, f.records[f.find("action.0400")].Payload); i > 0 {
					data[i+10] ^= 1
					must(f.t, os.WriteFile(file, data, 0o600))
				}
			}
			return at(f, "action.0400")
		}, true},
		"an event put in": {auditlog.Edited, func(f *forger) uint64 {
			i := f.find("action.0123")
			more := f.records[i]
			more.Payload = bytes.Replace(more.Payload, []byte("action.0123"), []byte("action.evil"), 1)
			f.records = slices.Insert(f.records, i, more)
			f.rechain()
			f.write()
			return uint64(i + 1)
		}, true},
		"an event repeated": {auditlog.Edited, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records = slices.Insert(f.records, i+1, f.records[i])
			f.rechain()
			f.write()
			return uint64(i + 2)
		}, true},
		"a drop": {auditlog.Dropped, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records = slices.Delete(f.records, i, i+1)
			f.write()
			return uint64(i + 1)
		}, true},
		"a drop, all made to fit": {auditlog.Dropped, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records = slices.Delete(f.records, i, i+1)
			f.rechain()
			f.write()
			return uint64(i + 1)
		}, true},
		"a segment removed": {auditlog.Dropped, func(f *forger) uint64 {
			must(f.t, os.Remove(f.segments()[1]))
			return f.firsts[1]
		}, true},
		"the first segment removed": {auditlog.Dropped, func(f *forger) uint64 {
			must(f.t, os.Remove(f.segments()[0]))
			return 1
		}, true},
		"the first segment removed, and a word that the log did it": {auditlog.Dropped, func(f *forger) uint64 {
			last := f.records[len(f.records)-1]
			last.Kind, last.Seq, last.Batch = auditlog.KindEvent, last.Seq+1, 0
			claim := auditlog.Event{Severity: auditlog.Notice, Category: auditlog.System, Action: "auditlog.pruned", Outcome: auditlog.Success,
				Attributes: map[string]string{"epoch": f.epoch, "from": "1", "to": fmt.Sprint(f.firsts[1] - 1)}}.Complete()
			last.Payload = claim.AppendJSON(nil)
			f.records = append(f.records, last)
			f.rechain()
			f.write()
			must(f.t, os.Remove(f.segments()[0]))
			return 1
		}, true},
		"two events swapped": {auditlog.Reordered, func(f *forger) uint64 {
			i, j := f.find("action.0123"), f.find("action.0130")
			f.records[i], f.records[j] = f.records[j], f.records[i]
			f.rechain()
			f.write()
			return uint64(i + 1)
		}, true},
		"two segments swapped": {auditlog.Reordered, func(f *forger) uint64 {
			s := f.segments()
			must(f.t, os.Rename(s[1], s[1]+"x"))
			must(f.t, os.Rename(s[2], s[1]))
			must(f.t, os.Rename(s[1]+"x", s[2]))
			return 0
		}, true},
		"the end cut off": {auditlog.Truncated, func(f *forger) uint64 {
			i := f.find("action.0650")
			f.records = f.records[:i]
			f.write()
			return uint64(i + 1)
		}, true},
		"the end cut off in the middle of a record": {auditlog.Truncated, func(f *forger) uint64 {
			s := f.segments()
			info, err := os.Stat(s[len(s)-1])
			must(f.t, err)
			must(f.t, os.Truncate(s[len(s)-1], info.Size()-20))
			return f.records[len(f.records)-1].Seq
		}, true},
		"the end overwritten with zeros, from the middle of a record": {auditlog.Truncated, func(f *forger) uint64 {
			s := f.segments()
			data, err := os.ReadFile(s[len(s)-1])
			must(f.t, err)
			clear(data[100:])
			must(f.t, os.WriteFile(s[len(s)-1], data, 0o600))
			return f.firsts[len(f.firsts)-1]
		}, true},
		"the last segment removed": {auditlog.Truncated, func(f *forger) uint64 {
			must(f.t, os.Remove(f.segments()[len(f.firsts)-1]))
			return f.firsts[len(f.firsts)-1]
		}, true},
		"the end and the mark of the close removed": {auditlog.Truncated, func(f *forger) uint64 {
			must(f.t, os.Remove(filepath.Join(f.dir, "clean")))
			f.records = f.records[:f.find("action.0650")]
			f.write()
			return uint64(len(f.records) + 1)
		}, false},
		"the epoch removed": {auditlog.Truncated, func(f *forger) uint64 {
			must(f.t, os.RemoveAll(filepath.Join(f.dir, f.epoch)))
			return 1
		}, true},
		"an edit, sealed anew with the stolen key": {auditlog.Resealed, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records[i].Payload = bytes.Replace(f.records[i].Payload, []byte("success"), []byte("blocked"), 1)
			f.reseal(signer)
			f.write()
			return f.records[i].Seq
		}, false},
		"an edit, sealed anew with a key of one's own": {auditlog.Resealed, func(f *forger) uint64 {
			i := f.find("action.0123")
			f.records[i].Payload = bytes.Replace(f.records[i].Payload, []byte("success"), []byte("blocked"), 1)
			f.reseal(thief)
			f.write()
			return f.records[i].Seq
		}, false},
		"the same history, sealed anew": {auditlog.Resealed, func(f *forger) uint64 {
			f.reseal(thief)
			f.write()
			return 0
		}, false},
		"an epoch under the name of another": {auditlog.Reordered, func(f *forger) uint64 {
			last := "7"
			if strings.HasSuffix(f.epoch, last) {
				last = "8"
			}
			other := f.epoch[:len(f.epoch)-1] + last
			must(f.t, os.Rename(filepath.Join(f.dir, f.epoch), filepath.Join(f.dir, other)))
			return 0
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForger(t, copyDir(t, base))
			seq := m.mutate(f)
			report := verify(t, f.dir, anchors, public)
			check := func(report *auditlog.Report) {
				t.Helper()
				if len(report.Findings) == 0 || report.Findings[0].Damage != m.want || seq > 0 && report.Findings[0].Seq != seq {
					t.Errorf("want %s at %d: %v\n%+v", m.want, seq, report.Err(), report.Findings)
				}
			}
			check(report)
			if m.withOut {
				check(verify(t, f.dir, "", public))
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Without anchors, another key shows; with the key that it was made with,
// nothing can.
func TestKeys(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	thief, other := key(t)
	sealedLog(t, dir, anchors, signer, 100)
	for name, r := range map[string]*auditlog.Report{"anchored": verify(t, dir, anchors, other), "alone": verify(t, dir, "", other)} {
		if len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.WrongKey {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
	f := newForger(t, copyDir(t, dir))
	f.reseal(thief)
	f.write()
	if r := verify(t, f.dir, "", public); len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.WrongKey {
		t.Errorf("sealed anew with another key: %v", r.Err())
	}
	if r := verify(t, f.dir, "", other); r.Err() != nil {
		t.Errorf("sealed anew, and verified with that key: %v", r.Err())
	}
	if r := verify(t, f.dir, ""); r.Err() != nil || !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "no key was given") }) {
		t.Errorf("without a key: %v, notes %q", r.Err(), r.Notes)
	}
}

func TestMissingAnchors(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	sealedLog(t, dir, anchors, signer, 300)
	names, _ := filepath.Glob(filepath.Join(anchors, "*.seal"))
	for name, gone := range map[string][]string{"the first": names[:1], "one in the middle": names[2:3], "the last": names[len(names)-1:], "all": names} {
		t.Run(name, func(t *testing.T) {
			there := copyDir(t, anchors)
			for _, path := range gone {
				must(t, os.Remove(filepath.Join(there, filepath.Base(path))))
			}
			if r := verify(t, dir, there, public); len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.AnchorMissing {
				t.Errorf("%v", r.Err())
			}
		})
	}
	t.Run("the whole place", func(t *testing.T) {
		if r := verify(t, dir, filepath.Join(t.TempDir(), "nowhere"), public); len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.AnchorMissing {
			t.Errorf("%v", r.Err())
		}
	})
}

// What is behind the last checkpoint is not damage, and is counted.
func TestTheWindowIsReported(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	sealedLog(t, dir, anchors, signer, 100)
	l := openT(t, dir, auditlog.Config{})
	for i := range 7 {
		must(t, l.Append(t.Context(), event(fmt.Sprint("late.", i))))
	}
	must(t, l.Close(t.Context()))
	r := verify(t, dir, anchors, public)
	if e := r.Epochs[0]; r.Err() != nil || e.Unsealed != 7 || e.Open != 7 || e.FirstOpen == "" || e.Closed {
		t.Errorf("%v: %+v", r.Err(), e)
	}
}

// Whatever happens to a byte of what is anchored, it is found.
func TestAnyChangedByteIsFound(t *testing.T) {
	base, anchors := t.TempDir(), t.TempDir()
	signer, public := key(t)
	sealedLog(t, base, anchors, signer, 120)
	dir := copyDir(t, base)
	f := newForger(t, dir)
	file := f.segments()[0]
	sound, err := os.ReadFile(file)
	must(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		data := bytes.Clone(sound)
		switch rapid.IntRange(0, 2).Draw(rt, "kind") {
		case 0:
			data[rapid.IntRange(0, len(data)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
		case 1:
			data = data[:rapid.IntRange(0, len(data)-1).Draw(rt, "size")]
		case 2:
			from := rapid.IntRange(0, len(data)-1).Draw(rt, "from")
			to := rapid.IntRange(from+1, len(data)).Draw(rt, "to")
			data = slices.Delete(data, from, to)
		}
		must(t, os.WriteFile(file, data, 0o600))
		if r := verify(t, dir, anchors, public); r.Err() == nil {
			rt.Fatal("it is not found")
		}
	})
}

// A host that is wiped begins another epoch, which names the last anchored
// checkpoint of the one before.
func TestEpochs(t *testing.T) {
	anchors := t.TempDir()
	signer, public := key(t)
	first, second := t.TempDir(), t.TempDir()
	sealedLog(t, first, anchors, signer, 100)
	sealedLog(t, second, anchors, signer, 50)
	r := verify(t, second, anchors, public)
	if r.Err() != nil || len(r.Epochs) != 2 || r.Epochs[1].Follows != r.Epochs[0].Epoch || r.Epochs[0].Last != 0 || !r.Epochs[0].Closed || r.Epochs[1].Events != 50 {
		t.Errorf("%v %+v", r.Err(), r.Epochs)
	}
	// Both lives side by side, as a sink keeps them; and then in each other's place.
	both := copyDir(t, first)
	must(t, os.CopyFS(both, onlyDirs{os.DirFS(second)}))
	if r := verify(t, both, anchors, public); r.Err() != nil || r.Events != 150 {
		t.Errorf("%v %+v", r.Err(), r)
	}
	a, b := filepath.Join(both, r.Epochs[0].Epoch), filepath.Join(both, r.Epochs[1].Epoch)
	must(t, os.Rename(a, a+".x"))
	must(t, os.Rename(b, a))
	must(t, os.Rename(a+".x", b))
	if r := verify(t, both, anchors, public); len(r.Findings) == 0 || r.Findings[0].Damage != auditlog.Reordered {
		t.Errorf("swapped: %v", r.Err())
	}
}

// onlyDirs leaves the files of a log's directory out, and keeps its epochs.
type onlyDirs struct{ fs.FS }

func (o onlyDirs) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return name == "." && !strings.Contains(e.Name(), "-") }), err
}
