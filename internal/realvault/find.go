package realvault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNotFound reports that there is no Vault binary on this machine.
var ErrNotFound = errors.New("no vault binary found")

const moduleLine = "module github.com/tamshai/phoenix"

// Find returns the path of the Vault binary. It looks, in this order, at
//
//   - the file that VAULT_BIN names; if VAULT_BIN is set, nothing else is tried;
//   - "vault" on the PATH;
//   - bin/vault in the directory that PHOENIX_CACHE names;
//   - .cache/bin/vault in the repository that the working directory is in.
//
// The error wraps [ErrNotFound] and says how to get the binary.
func Find() (string, error) {
	if bin := os.Getenv("VAULT_BIN"); bin != "" {
		path, err := exec.LookPath(bin)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return "", fmt.Errorf("%w: VAULT_BIN is set but does not name an executable: %w; correct it, or unset it and run `make servers`", ErrNotFound, err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("vault"); err == nil {
		return filepath.Abs(path)
	}
	var places []string
	if dir := os.Getenv("PHOENIX_CACHE"); dir != "" {
		places = append(places, filepath.Join(dir, "bin", "vault"))
	}
	if root, err := moduleRoot(); err == nil {
		places = append(places, filepath.Join(root, ".cache", "bin", "vault"))
	}
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return filepath.Abs(path)
		}
	}
	if len(places) == 0 {
		return "", fmt.Errorf("%w: not in VAULT_BIN, not on the PATH, and the working directory is not in the Phoenix repository; install Vault, set VAULT_BIN, or run `make servers` in the repository", ErrNotFound)
	}
	return "", fmt.Errorf("%w: not in VAULT_BIN, not on the PATH, not at %q; run `make servers` to build it", ErrNotFound, places)
}

// moduleRoot walks up from the working directory to the directory of
// Phoenix's own go.mod, past the go.mod files of nested modules.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		switch {
		case err == nil:
			first, _, _ := bytes.Cut(mod, []byte("\n"))
			if string(bytes.TrimSpace(first)) == moduleLine {
				return dir, nil
			}
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fs.ErrNotExist
		}
		dir = parent
	}
}
