package sdnotify_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/sdnotify"
)

func Example() {
	// Outside a supervisor nothing happens.
	os.Unsetenv("NOTIFY_SOCKET")
	fmt.Println(sdnotify.Notify(sdnotify.Ready + "\n" + sdnotify.Status("12 services\nhave a spare")))
	fmt.Println(sdnotify.Status("12 services\nhave a spare"))
	// Output:
	// <nil>
	// STATUS=12 services have a spare
}

// supervisor listens at a socket and returns what comes.
func supervisor(t *testing.T, path string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		buf := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	for name, path := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@phoenix-sdnotify-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			received := supervisor(t, path)
			for _, state := range []string{sdnotify.Ready, sdnotify.Watchdog, sdnotify.Status("ok"), sdnotify.Stopping} {
				if err := sdnotify.Notify(state); err != nil {
					t.Fatal(err)
				}
				if got := received(); got != state {
					t.Errorf("got %q, want %q", got, state)
				}
			}
		})
	}
}

func TestNotifyToNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := sdnotify.Notify(sdnotify.Ready); err == nil || !strings.Contains(err.Error(), "NOTIFY_SOCKET") {
		t.Errorf("got %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", "relative")
	if err := sdnotify.Notify(sdnotify.Ready); err == nil || !strings.Contains(err.Error(), "unset it") {
		t.Errorf("got %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"30000000", me, 30 * time.Second},
		{"30000000", "", 30 * time.Second},
		{"30000000", me + "0", 0},
		{"", me, 0},
		{"-1", me, 0},
		{"soon", me, 0},
		{"9223372036854775807", me, 0},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got := sdnotify.WatchdogInterval(); got != tt.want {
			t.Errorf("%q for %q: %s", tt.usec, tt.pid, got)
		}
	}
}
