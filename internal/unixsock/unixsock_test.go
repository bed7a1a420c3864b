package unixsock_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/tamshai/phoenix/internal/unixsock"
)

func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	listen := func(name string) *net.UnixListener {
		l, err := net.Listen("unix", path(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.(*net.UnixListener)
	}
	listen("busy")
	left := listen("left")
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	if err := os.WriteFile(path("file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path("left"), path("link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		taken bool
		stays bool
	}{
		{"nothing", false, false}, {"busy", true, true}, {"file", true, true},
		{"link", true, true}, {"left", false, false},
	} {
		err := unixsock.RemoveStale(t.Context(), path(tt.name))
		if errors.Is(err, unixsock.ErrTaken) != tt.taken || err != nil && !tt.taken {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := os.Lstat(path(tt.name)); (err == nil) != tt.stays {
			t.Errorf("%s afterwards: %v", tt.name, err)
		}
	}
}
