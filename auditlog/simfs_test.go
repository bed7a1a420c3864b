package auditlog_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing/fstest"

	"github.com/tamshai/phoenix/auditlog"
)

// A simDisk is a directory on a disk that may lose power: what was not synced
// is then lost, torn or there in any order, sector by sector. Operations on
// names are kept in their order, as a journal does, up to some point.
type simDisk struct {
	mu    sync.Mutex
	files map[string]*simNode         // as they are seen
	saved map[string]*simNode         // as they are on the disk
	names []func(map[string]*simNode) // operations on names that are not synced

	ops  int
	fail func(op int, what string) error // nil, or what an operation ends with
}

type simNode struct {
	dir      bool
	data     []byte
	durable  []byte
	unsynced []simWrite
}

type simWrite struct {
	off  int64
	data []byte
	size int64 // of a truncation; -1: it is none
}

var errPower = errors.New("the power is off")

func newSimDisk() *simDisk {
	return &simDisk{files: map[string]*simNode{}, saved: map[string]*simNode{}}
}

func (d *simDisk) op(what string) error {
	d.ops++
	if d.fail == nil {
		return nil
	}
	return d.fail(d.ops, what)
}

// crash is the disk after a power cut.
func (d *simDisk) crash(rng *rand.Rand) *simDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, apply := range d.names[:rng.IntN(len(d.names)+1)] {
		apply(d.saved)
	}
	out := newSimDisk()
	for name, n := range d.saved {
		data := bytes.Clone(n.durable)
		for _, w := range n.unsynced {
			if w.size >= 0 {
				if rng.IntN(2) == 0 {
					data = resize(data, w.size)
				}
				continue
			}
			const sector = 512
			for from := int64(0); from < int64(len(w.data)); {
				to := min((w.off+from)/sector*sector+sector-w.off, int64(len(w.data)))
				end := to
				switch rng.IntN(8) {
				case 0: // torn
					end = from + rng.Int64N(to-from+1)
				case 1, 2, 3: // lost
					end = from
				}
				if end > from {
					data = resize(data, max(int64(len(data)), w.off+end))
					copy(data[w.off+from:w.off+end], w.data[from:end])
				}
				from = to
			}
		}
		node := &simNode{dir: n.dir, data: data, durable: bytes.Clone(data)}
		out.files[name], out.saved[name] = node, node
	}
	return out
}

func resize(b []byte, size int64) []byte {
	if int64(len(b)) >= size {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// view is the directory for readers.
func (d *simDisk) view() fstest.MapFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := fstest.MapFS{}
	for name, n := range d.files {
		mode := fs.FileMode(0o600)
		if n.dir {
			mode |= fs.ModeDir
		}
		out[name] = &fstest.MapFile{Data: bytes.Clone(n.data), Mode: mode}
	}
	return out
}

func (d *simDisk) Open(name string) (fs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("open"); err != nil {
		return nil, err
	}
	n := d.files[name]
	if n != nil && !n.dir {
		return &simReader{simFile{d, n}, name}, nil
	}
	out := fstest.MapFS{} // of a directory, the names
	for there, n := range d.files {
		if there == name || path.Dir(there) == name {
			mode := fs.FileMode(0o600)
			if n.dir {
				mode |= fs.ModeDir
			}
			out[there] = &fstest.MapFile{Mode: mode}
		}
	}
	return out.Open(name)
}

// A simReader is an open file, which sees what is written to it.
type simReader struct {
	simFile
	name string
}

func (r *simReader) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (r *simReader) Stat() (fs.FileInfo, error) {
	size, _ := r.Size()
	return fs.Stat(fstest.MapFS{"x": &fstest.MapFile{Data: make([]byte, size)}}, "x")
}

// ReadFile is for fs.ReadFile.
func (d *simDisk) ReadFile(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("open"); err != nil {
		return nil, err
	}
	if n := d.files[name]; n != nil && !n.dir {
		return bytes.Clone(n.data), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (d *simDisk) change(what string, apply func(map[string]*simNode)) error {
	if err := d.op(what); err != nil {
		return err
	}
	apply(d.files)
	d.names = append(d.names, apply)
	return nil
}

func (d *simDisk) Create(name string) (auditlog.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if dir := path.Dir(name); dir != "." && d.files[dir] == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	n := &simNode{}
	if err := d.change("create", func(m map[string]*simNode) { m[name] = n }); err != nil {
		return nil, err
	}
	return &simFile{d, n}, nil
}

func (d *simDisk) OpenFile(name string) (auditlog.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("open"); err != nil {
		return nil, err
	}
	n := d.files[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &simFile{d, n}, nil
}

func (d *simDisk) Mkdir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] != nil {
		return nil
	}
	n := &simNode{dir: true}
	return d.change("mkdir", func(m map[string]*simNode) { m[name] = n })
}

func (d *simDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.files[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	return d.change("rename", func(m map[string]*simNode) { delete(m, from); m[to] = n })
}

func (d *simDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	return d.change("remove", func(m map[string]*simNode) { delete(m, name) })
}

// SyncDir makes all operations on names durable, as a journal does.
func (d *simDisk) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("syncdir"); err != nil {
		return err
	}
	d.saved, d.names = maps.Clone(d.files), nil
	return nil
}

func (d *simDisk) Lock(string) (io.Closer, error) { return io.NopCloser(strings.NewReader("")), nil }

type simFile struct {
	d *simDisk
	n *simNode
}

func (f *simFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return bytes.NewReader(f.n.data).ReadAt(p, off)
}

func (f *simFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op("write"); err != nil {
		// A full disk takes a part.
		if half := p[:len(p)/2]; errors.Is(err, syscall.ENOSPC) {
			f.write(half, off)
			return len(half), err
		}
		return 0, err
	}
	f.write(p, off)
	return len(p), nil
}

func (f *simFile) write(p []byte, off int64) {
	f.n.data = resize(f.n.data, max(int64(len(f.n.data)), off+int64(len(p))))
	copy(f.n.data[off:], p)
	f.n.unsynced = append(f.n.unsynced, simWrite{off, bytes.Clone(p), -1})
}

func (f *simFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op("sync"); err != nil {
		return err
	}
	for _, w := range f.n.unsynced {
		if w.size >= 0 {
			f.n.durable = resize(f.n.durable, w.size)
			continue
		}
		f.n.durable = resize(f.n.durable, max(int64(len(f.n.durable)), w.off+int64(len(w.data))))
		copy(f.n.durable[w.off:], w.data)
	}
	f.n.unsynced = nil
	return nil
}

func (f *simFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op("truncate"); err != nil {
		return err
	}
	f.n.data = resize(f.n.data, size)
	f.n.unsynced = append(f.n.unsynced, simWrite{size: size})
	return nil
}

func (f *simFile) Allocate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op("allocate"); err != nil {
		return err
	}
	f.n.data = resize(f.n.data, max(size, int64(len(f.n.data))))
	f.n.unsynced = append(f.n.unsynced, simWrite{size: int64(len(f.n.data))})
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *simFile) Is(name string) (bool, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.files[name] == f.n, nil
}

func (f *simFile) Close() error { return nil }

// ids are those of the events in a log, sorted.
func ids(fsys fs.FS, damage func(string)) ([]string, error) {
	var out []string
	for e, err := range auditlog.Read(fsys, damage) {
		if err != nil {
			return nil, err
		}
		if e.Kind == auditlog.KindEvent {
			out = append(out, e.ID)
		}
	}
	slices.Sort(out)
	return out, nil
}
