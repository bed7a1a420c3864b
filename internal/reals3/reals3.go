// Package reals3 runs a private S3 server with versions and Object Lock, for
// tests: versitygw over a directory, which "make servers" builds.
package reals3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/tamshai/phoenix/internal/freeport"
)

// ErrNotFound reports that there is no server on this machine.
var ErrNotFound = errors.New("no S3 server found")

// The credentials of every server.
const (
	AccessKey = "phoenix"
	SecretKey = "phoenix-s3-secret"
	Region    = "us-east-1"
)

// TB is what is needed of a *testing.T.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	TempDir() string
	Cleanup(func())
}

// A Server is an S3 server. Buckets are made through its interface.
type Server struct {
	Endpoint string // http://127.0.0.1:…
	Dir      string // with the newest versions of objects, by bucket

	cmd *exec.Cmd
	out bytes.Buffer
}

// Find returns the path of the server: what S3_BIN names, else bin/s3 in the
// directory that PHOENIX_CACHE names or in .cache of the repository.
func Find() (string, error) {
	if bin := os.Getenv("S3_BIN"); bin != "" {
		return exec.LookPath(bin)
	}
	var places []string
	if cache := os.Getenv("PHOENIX_CACHE"); cache != "" {
		places = append(places, filepath.Join(cache, "bin", "s3"))
	}
	if dir, err := os.Getwd(); err == nil {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			mod, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
			if bytes.HasPrefix(mod, []byte("module github.com/tamshai/phoenix\n")) {
				places = append(places, filepath.Join(dir, ".cache", "bin", "s3"))
				break
			}
		}
	}
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("%w at %q; run `make servers` to build it", ErrNotFound, places)
}

// Start runs a server until stop is called.
func Start(dir string) (s *Server, stop func(), err error) {
	bin, err := Find()
	if err != nil {
		return nil, nil, err
	}
	dirs := map[string]string{"data": "", "versions": "", "meta": ""}
	for name := range dirs {
		dirs[name] = filepath.Join(dir, name)
		if err := os.MkdirAll(dirs[name], 0o700); err != nil {
			return nil, nil, err
		}
	}
	for range 5 { // somebody else may take the port
		addr, err := freeport.Addr(context.Background())
		if err != nil {
			return nil, nil, err
		}
		s := &Server{Endpoint: "http://" + addr, Dir: dirs["data"]}
		s.cmd = exec.Command(bin, "--port", addr, "--region", Region, "--quiet", "--keep-alive", "posix", "--versioning-dir", dirs["versions"], "--sidecar", dirs["meta"], dirs["data"])
		s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
		s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
		s.cmd.WaitDelay = time.Second
		if err := s.cmd.Start(); err != nil {
			return nil, nil, err
		}
		exited := make(chan struct{})
		go func() { _ = s.cmd.Wait(); close(exited) }()
		stop := sync.OnceFunc(func() { _ = s.cmd.Process.Kill(); <-exited })
		if s.ready(exited) {
			return s, stop, nil
		}
		stop()
		err = fmt.Errorf("the S3 server at %s does not start: %s", addr, s.out.String())
		if !bytes.Contains(s.out.Bytes(), []byte("in use")) {
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("no port is free for the S3 server")
}

func (s *Server) ready(exited <-chan struct{}) bool {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint, nil)
		if err != nil {
			return false
		}
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
			return true
		}
		select {
		case <-exited:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// StartT runs a server until the test ends.
func StartT(t TB) *Server {
	t.Helper()
	s, stop, err := Start(t.TempDir())
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(stop)
	return s
}
