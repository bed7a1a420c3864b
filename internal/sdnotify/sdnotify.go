// Package sdnotify tells systemd, or whatever else supervises this process and
// speaks its protocol (sd_notify(3)), how it is doing. Without a supervisor it
// does nothing.
//
//	sdnotify.Notify(sdnotify.Ready)                    // Type=notify: it has started
//	sdnotify.Notify(sdnotify.Status("12 spares"))      // what systemctl status shows
//	sdnotify.Notify(sdnotify.Watchdog)                 // within each WatchdogInterval
//	sdnotify.Notify(sdnotify.Stopping)
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The states of the protocol.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Watchdog = "WATCHDOG=1"
)

// Status is a state that describes, in one line, what the process is doing.
func Status(text string) string {
	return "STATUS=" + strings.Join(strings.Fields(text), " ")
}

// Notify sends state to the socket that NOTIFY_SOCKET names; several states
// may be joined with line breaks. Without NOTIFY_SOCKET it does nothing. It
// never blocks for longer than a second.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return fmt.Errorf("sdnotify: NOTIFY_SOCKET is %q, which is neither a path nor an abstract socket; let the supervisor set it, or unset it", path)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("sdnotify: the supervisor's socket NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a datagram socket has deadlines
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("sdnotify: tell the supervisor: %w", err)
	}
	return nil
}

// WatchdogInterval is the time within which the supervisor expects each
// Watchdog (WATCHDOG_USEC), 0 if it expects none of this process. Send them
// twice as often.
func WatchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // it is meant for another process
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || usec > int64(365*24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}
