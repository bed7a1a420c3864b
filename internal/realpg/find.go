package realpg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// ErrNotFound reports that there are no binaries of a version on this machine.
var ErrNotFound = errors.New("no PostgreSQL binaries found")

const moduleLine = "module github.com/tamshai/phoenix"

// Find returns the directory of the binaries of a major version. It looks, in
// this order, at
//
//   - the directory that PGBIN_15 (for 15) names; if it is set, nothing else is tried;
//   - /usr/lib/postgresql/15/bin, where Debian's package has them;
//   - postgres-15/bin in the cache, where "make servers" puts them.
//
// The error wraps [ErrNotFound] and says how to get them.
func Find(version int) (string, error) {
	v := strconv.Itoa(version)
	if dir := os.Getenv("PGBIN_" + v); dir != "" {
		if err := usable(dir); err != nil {
			return "", fmt.Errorf("%w: PGBIN_%s is set, but: %w; correct it, or unset it", ErrNotFound, v, err)
		}
		return filepath.Abs(dir)
	}
	places := []string{filepath.Join("/usr/lib/postgresql", v, "bin")}
	if cache := cacheDir(); cache != "" {
		places = append(places, filepath.Join(cache, "postgres-"+v, "bin"))
	}
	for _, dir := range places {
		if usable(dir) == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: PostgreSQL %s is not at %q; run `make servers`, or apt-get install postgresql-%s, or set PGBIN_%s", ErrNotFound, v, places, v, v)
}

func usable(dir string) error {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
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
