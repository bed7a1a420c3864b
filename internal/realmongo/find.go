package realmongo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNotFound reports that there is no binary of the server on this machine.
var ErrNotFound = errors.New("no server for the MongoDB protocol found")

const moduleLine = "module github.com/tamshai/phoenix"

// Find returns the path of the binary. It looks, in this order, at
//
//   - the file that MONGO_BIN names; if it is set, nothing else is tried;
//   - bin/mongo in the cache, where "make servers" builds it.
//
// A "mongo" on the PATH would be MongoDB's shell. The error wraps [ErrNotFound]
// and says how to get the binary.
func Find() (string, error) {
	if bin := os.Getenv("MONGO_BIN"); bin != "" {
		path, err := exec.LookPath(bin)
		if err != nil {
			return "", fmt.Errorf("%w: MONGO_BIN is set, but: %w; correct it, or unset it and run `make servers`", ErrNotFound, err)
		}
		return filepath.Abs(path)
	}
	cache := cacheDir()
	path, err := exec.LookPath(filepath.Join(cache, "bin", "mongo"))
	if cache == "" || err != nil {
		return "", fmt.Errorf("%w: not in MONGO_BIN, and not at bin/mongo in the cache %q; run `make servers` to build it", ErrNotFound, cache)
	}
	return filepath.Abs(path)
}

// cacheDir is the directory that PHOENIX_CACHE names, else .cache in the
// repository that the working directory is in; "" when there is neither.
func cacheDir() string {
	if dir := os.Getenv("PHOENIX_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if first, _, _ := bytes.Cut(mod, []byte("\n")); err == nil && string(bytes.TrimSpace(first)) == moduleLine {
			return filepath.Join(dir, ".cache")
		}
		parent := filepath.Dir(dir)
		if parent == dir || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
			return ""
		}
		dir = parent
	}
}
