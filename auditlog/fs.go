package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A filesystem is what a log needs of a directory. Names have slashes. The
// tests have one that forgets, tears and reorders what was not synced.
type filesystem interface {
	fs.FS // for readers

	Create(name string) (file, error)   // fails if the name is there
	OpenFile(name string) (file, error) // for reading and writing
	Mkdir(name string) error            // no error if it is there
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(name string) error           // makes creations, renames and removals in it durable
	Lock(name string) (io.Closer, error) // errLocked if somebody has it
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error                  // data, and what is needed to read it
	Truncate(size int64) error    // and zeros from there, if it grows
	Allocate(size int64) error    // space up to size, which reads as zeros
	Size() (int64, error)         // of the file
	Is(name string) (bool, error) // whether name still leads to this file
}

var errLocked = errors.New("locked")

// replace writes a small file in one step.
func replace(fsys filesystem, name string, data []byte) error {
	temp := name + ".tmp"
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return err
	}
	return fsys.SyncDir(dirOf(name))
}

func dirOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		return name[:i]
	}
	return "."
}

// osDir is a directory of the operating system.
type osDir struct{ path string }

func (d osDir) join(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

func (d osDir) Open(name string) (fs.File, error) { return os.DirFS(d.path).Open(name) }

// Stat does not open the file.
func (d osDir) Stat(name string) (fs.FileInfo, error) { return fs.Stat(os.DirFS(d.path), name) }

func (d osDir) Create(name string) (file, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}
func (d osDir) OpenFile(name string) (file, error) { return d.open(name, os.O_RDWR) }

func (d osDir) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(d.join(name), flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f, dir: d}, nil
}

func (d osDir) Mkdir(name string) error {
	if err := os.Mkdir(d.join(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (d osDir) Rename(from, to string) error { return os.Rename(d.join(from), d.join(to)) }
func (d osDir) Remove(name string) error     { return os.Remove(d.join(name)) }

func (d osDir) SyncDir(name string) error {
	f, err := os.Open(d.join(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d osDir) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(d.join(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

type osFile struct {
	*os.File
	dir osDir
}

func (f *osFile) Sync() error               { return datasync(f.File) }
func (f *osFile) Allocate(size int64) error { return allocate(f.File, size) }

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Is(name string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.dir.join(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, there), err
}

// openDir makes and checks the directory of a log.
func openDir(path string) (osDir, error) {
	if path == "" {
		return osDir{}, errors.New("auditlog: no directory is named")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return osDir{}, fmt.Errorf("auditlog: make the directory: %w; choose one on a local disk that this user may write to", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return osDir{}, fmt.Errorf("auditlog: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return osDir{}, fmt.Errorf("auditlog: others can write to %s, and so replace its files; chmod go-w %s", path, path)
	}
	kind, err := networkKind(path)
	if err != nil {
		return osDir{}, fmt.Errorf("auditlog: look at %s: %w", path, err)
	}
	if kind != "" {
		return osDir{}, fmt.Errorf("auditlog: %s is on %s: locks and syncs over a network do not keep what they promise; choose a local disk", path, kind)
	}
	return osDir{path}, nil
}

// Names in the directory of a log.
const (
	lockName  = "lock"
	cursorDir = "cursors"
	deadDir   = "dead"
	segSuffix = ".seg"
)

func segmentName(epoch string, first uint64) string {
	return fmt.Sprintf("%s/%020d%s", epoch, first, segSuffix)
}

// epochsIn returns the epochs in the order of their making.
func epochsIn(fsys fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && isUUID(e.Name()) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// segmentsOf returns the numbers of the first records of an epoch's segments.
func segmentsOf(fsys fs.FS, epoch string) ([]uint64, error) {
	segments, _, err := segmentsAnd(fsys, epoch)
	return segments, err
}

// segmentsAnd also returns what is named like a segment and is no regular file.
// No log makes such, and to open one may take for ever.
func segmentsAnd(fsys fs.FS, epoch string) (segments []uint64, others []string, err error) {
	entries, err := fs.ReadDir(fsys, epoch)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segSuffix)
		first, err := strconv.ParseUint(digits, 10, 64)
		switch {
		case !ok || err != nil || len(digits) != 20:
		case !e.Type().IsRegular():
			others = append(others, epoch+"/"+e.Name())
		default:
			segments = append(segments, first)
		}
	}
	slices.Sort(segments)
	return segments, others, nil
}

const (
	maxSegment = 1 << 30  // bytes: the largest that a Config allows
	maxSmall   = 64 << 10 // bytes: more than a cursor or the mark has
)

// errForeign says that a file is none of a log's.
var errForeign = errors.New("this is no file of an audit log")

// readUpTo reads a regular file of at most so many bytes. Of a larger one it
// returns what stands before many zeros, if not so many bytes, and errForeign.
// Whoever is root can put anything into the directory of a log, such as a pipe,
// or a file of a terabyte that is all holes.
func readUpTo(fsys fs.FS, name string, most int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is no regular file", name, errForeign)
	}
	if info.Size() <= most {
		return fs.ReadFile(fsys, name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data []byte
	for chunk := make([]byte, min(most, 2*maxPayload)); int64(len(data)) < most; {
		n, err := io.ReadFull(f, chunk[:min(int64(len(chunk)), most-int64(len(data)))])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		if len(bytes.TrimLeft(chunk[:n], "\x00")) == 0 {
			break
		}
		data = append(data, chunk[:n]...)
	}
	return data, fmt.Errorf("%s: %w: it has %d bytes", name, errForeign, info.Size())
}

// readSegment reads what there is of a segment, and tells whether the file is
// larger than any segment.
func readSegment(fsys fs.FS, name string) (data []byte, grown bool, err error) {
	data, err = readUpTo(fsys, name, maxSegment)
	if errors.Is(err, errForeign) {
		return data, true, nil
	}
	return data, false, err
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// networkName names a network file system by its number in statfs(2).
func networkName(kind uint32) string {
	switch kind {
	case 0x6969:
		return "NFS"
	case 0x517b, 0xff534d42, 0xfe534d42:
		return "SMB"
	case 0x00c36400:
		return "Ceph"
	case 0x5346414f, 0x6b414653:
		return "AFS"
	case 0x73757245:
		return "Coda"
	}
	return ""
}
