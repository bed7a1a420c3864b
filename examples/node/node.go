// Package node holds a gateway and two services in Node, as they were before
// Phoenix, and runs each behind its agent on one host. See README.md.
//
// [Build] makes a [Site]: real Vault and real PostgreSQL, provisioned by
// estate.yaml. A [Fleet] is the services behind their agents. [Drive] puts load
// on them. The command in try plays all of it.
package node

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed package.json package-lock.json estate.yaml gateway hr finance
var files embed.FS

// The services, callees first: the order in which they start.
const (
	HR      = "mcp-hr"
	Finance = "mcp-finance"
	Gateway = "mcp-gateway"
)

// The database that HR writes to, and the lease that it does so on.
const (
	Database = "tamshai_hr"
	Lease    = "database/creds/" + HR
)

// Schema is what HR expects in its database.
//
//go:embed hr/schema.sql
var Schema string

// folder is where a service's files are.
var folder = map[string]string{HR: "hr", Finance: "finance", Gateway: "gateway"}

// ErrMissing is a machine without Node, or without what the services need from npm.
var ErrMissing = errors.New("the Node example cannot run here")

// Modules is the folder of what the services need from npm, in the cache. If it
// is not there it is installed, when install says so: npm ci, by the lockfile.
// Errors wrap ErrMissing.
func Modules(ctx context.Context, cache string, install bool) (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil && (program == "node" || install) {
			return "", fmt.Errorf("%w: there is no %s on the PATH (apt-get install nodejs npm)", ErrMissing, program)
		}
	}
	lock, err := files.ReadFile("package-lock.json")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "node-example", hex.EncodeToString(sum[:6]))
	modules := filepath.Join(dir, "node_modules")
	if info, err := os.Stat(modules); err == nil && info.IsDir() {
		return modules, nil
	}
	if !install {
		return "", fmt.Errorf("%w: what the services need from npm is not in %s (make servers, or examples/node/try.sh)", ErrMissing, modules)
	}
	// Others may be installing, too: the first one stays.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // G301: it is a cache
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".installing-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work) //nolint:errcheck // it is moved, or of no use
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := files.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(work, name), data, 0o644) //nolint:gosec // G306: the same
		}
		if err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: npm ci: %w\n%s", ErrMissing, err, strings.TrimSpace(string(out)))
	}
	if err := os.Chmod(work, 0o755); err != nil { //nolint:gosec // G302: the same
		return "", err
	}
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return modules, nil
}

// Cache is where built and fetched things are kept: what PHOENIX_CACHE names, or
// .cache above the working directory, in the repository.
func Cache() (string, error) {
	if dir := os.Getenv("PHOENIX_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "walls_test.go")); err == nil {
			return filepath.Join(dir, ".cache"), nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return "", fmt.Errorf("%w: set PHOENIX_CACHE to a folder, or run it in the repository", ErrMissing)
}
