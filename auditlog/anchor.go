package auditlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DirAnchor returns an Anchor in a directory: for one that is mounted from
// another machine on which names cannot be changed, and for tests. On a disk of
// the same host it stops nobody who is root there.
func DirAnchor(dir string) (Anchor, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("auditlog: the anchor: %w", err)
	}
	return dirAnchor{dir}, nil
}

type dirAnchor struct{ dir string }

func (a dirAnchor) Put(_ context.Context, name string, data []byte) error {
	path := filepath.Join(a.dir, filepath.Base(name))
	// The whole is there before it has its name, and a link fails if the name
	// is taken.
	temp, err := os.CreateTemp(a.dir, ".anchor-")
	if err != nil {
		return fmt.Errorf("auditlog: the anchor: %w", err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // it has its other name by then, or is of no use
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Chmod(0o444), temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("auditlog: the anchor: %w", err)
	}
	if err := os.Link(temp.Name(), path); err != nil {
		if there, e := readAnchor(os.DirFS(a.dir), filepath.Base(name)); e == nil {
			if bytes.Equal(there, data) {
				return nil
			}
			return fmt.Errorf("%w: %s", ErrAnchorTaken, path)
		}
		return fmt.Errorf("auditlog: the anchor: %w", err)
	}
	return osDir{a.dir}.SyncDir(".")
}

func (a dirAnchor) Last(context.Context) ([]byte, error) {
	names, err := anchorsIn(os.DirFS(a.dir))
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return readAnchor(os.DirFS(a.dir), names[len(names)-1])
}

func readAnchor(fsys fs.FS, name string) ([]byte, error) { return readUpTo(fsys, name, maxPayload) }

// anchorsIn returns the names of anchored checkpoints in order.
func anchorsIn(fsys fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("auditlog: the anchor: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), anchorSuffix) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}
