package s3lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// version is the oldest version of an object.
type version struct {
	key, id string
	size    int64
	time    time.Time
}

// list returns the oldest version of every object whose key begins so.
func list(ctx context.Context, client *s3.Client, bucket, prefix string) (map[string]version, error) {
	out := map[string]version{}
	pages := s3.NewListObjectVersionsPaginator(client, &s3.ListObjectVersionsInput{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("s3://%s/%s: %w", bucket, prefix, err)
		}
		for _, v := range page.Versions {
			// The newest of a key comes first, so that the last one counts.
			out[aws.ToString(v.Key)] = version{aws.ToString(v.Key), aws.ToString(v.VersionId), aws.ToInt64(v.Size), aws.ToTime(v.LastModified)}
		}
	}
	return out, nil
}

// get reads a version, and reports whether it is locked.
func get(ctx context.Context, client *s3.Client, bucket string, v version) (data []byte, locked bool, err error) {
	res, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &v.key, VersionId: &v.id, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		return nil, false, fmt.Errorf("s3://%s/%s: %w", bucket, v.key, err)
	}
	defer res.Body.Close()
	if data, err = io.ReadAll(res.Body); err != nil {
		return nil, false, fmt.Errorf("s3://%s/%s: %w", bucket, v.key, err)
	}
	mode, until := res.ObjectLockMode, res.ObjectLockRetainUntilDate
	if mode == "" { // some servers say it only here
		res, err := client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &bucket, Key: &v.key, VersionId: &v.id})
		var api smithy.APIError
		switch {
		case errors.As(err, &api) && api.ErrorCode() == "NoSuchObjectLockConfiguration":
		case err != nil:
			return nil, false, fmt.Errorf("s3://%s/%s: see whether it is locked: %w", bucket, v.key, err)
		case res.Retention != nil:
			mode, until = types.ObjectLockMode(res.Retention.Mode), res.Retention.RetainUntilDate
		}
	}
	return data, mode == types.ObjectLockModeCompliance && time.Now().Before(aws.ToTime(until)), nil
}

// An FS reads what is under a prefix of a bucket, the oldest version of each
// object, whatever was put or deleted over it. It is safe for concurrent use.
type FS struct {
	ctx    context.Context
	client *s3.Client
	bucket string
	files  map[string]version       // by path
	dirs   map[string][]fs.DirEntry // in the order of their names

	mu       sync.Mutex
	name     string // of the file that was read last
	data     []byte
	unlocked map[string]bool
}

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.ReadFileFS = (*FS)(nil)
)

// NewFS lists what is under a prefix, as it is now: a log that [Sink] has
// delivered, with its checkpoints in "anchors". ctx is for all that is read.
func NewFS(ctx context.Context, client *s3.Client, bucket, prefix string) (*FS, error) {
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	found, err := list(ctx, client, bucket, prefix)
	if err != nil {
		return nil, fmt.Errorf("s3lock: %w", err)
	}
	f := &FS{ctx: ctx, client: client, bucket: bucket, files: map[string]version{}, dirs: map[string][]fs.DirEntry{".": nil}, unlocked: map[string]bool{}}
	for key, v := range found {
		name := strings.TrimPrefix(key, prefix)
		if !fs.ValidPath(name) || name == "." {
			continue
		}
		f.files[name] = v
		f.enter(name, info{path.Base(name), v.size, v.time, 0o444})
	}
	for _, entries := range f.dirs {
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return f, nil
}

// enter puts a file into its directory, and that into the one above.
func (f *FS) enter(name string, i info) {
	dir := path.Dir(name)
	_, known := f.dirs[dir]
	f.dirs[dir] = append(f.dirs[dir], i)
	if !known {
		f.enter(dir, info{path.Base(dir), 0, time.Time{}, fs.ModeDir | 0o555})
	}
}

// Unlocked returns the files that were read and can be removed at this time:
// their retention is over, or they were never locked.
func (f *FS) Unlocked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for name := range f.unlocked {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Open opens a file or a directory. A file is read whole at its first Read.
func (f *FS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if v, ok := f.files[name]; ok {
		return &file{f: f, name: name, info: info{path.Base(name), v.size, v.time, 0o444}}, nil
	}
	if entries, ok := f.dirs[name]; ok {
		return &dir{name: name, info: info{path.Base(name), 0, time.Time{}, fs.ModeDir | 0o555}, rest: entries}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir lists a directory.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, ok := f.dirs[name]
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(entries), nil
}

// ReadFile reads a file.
func (f *FS) ReadFile(name string) ([]byte, error) {
	data, err := f.read(name)
	return bytes.Clone(data), err
}

// read keeps what was read last: a verifier comes back to it.
func (f *FS) read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.name == name && f.data != nil {
		return f.data, nil
	}
	v, ok := f.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	data, locked, err := get(f.ctx, f.client, f.bucket, v)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	if !locked {
		f.unlocked[name] = true
	}
	f.name, f.data = name, data
	return data, nil
}

type info struct {
	name string
	size int64
	time time.Time
	mode fs.FileMode
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) Mode() fs.FileMode          { return i.mode }
func (i info) ModTime() time.Time         { return i.time }
func (i info) IsDir() bool                { return i.mode.IsDir() }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.mode.Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) String() string             { return fs.FormatDirEntry(i) }

type file struct {
	f    *FS
	name string
	info info
	data *bytes.Reader
}

func (o *file) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o *file) Close() error               { return nil }

func (o *file) load() error {
	if o.data != nil {
		return nil
	}
	data, err := o.f.read(o.name)
	if err == nil {
		o.data = bytes.NewReader(data)
	}
	return err
}

func (o *file) Read(p []byte) (int, error) {
	if err := o.load(); err != nil {
		return 0, err
	}
	return o.data.Read(p)
}

func (o *file) ReadAt(p []byte, off int64) (int, error) {
	if err := o.load(); err != nil {
		return 0, err
	}
	return o.data.ReadAt(p, off)
}

type dir struct {
	name string
	info info
	rest []fs.DirEntry
}

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return nil }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := slices.Clone(d.rest)
		d.rest = nil
		return out, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	out := slices.Clone(d.rest[:n])
	d.rest = d.rest[n:]
	return out, nil
}
