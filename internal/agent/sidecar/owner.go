package sidecar

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/auditlog"
)

// An owned listener takes connections of some users' processes alone. On a unix
// socket the file's mode sees to that.
type owned struct {
	net.Listener
	sc *Sidecar
	at string

	mu  sync.Mutex
	saw map[string]bool // who was recorded
}

// own has a port for the program taken by its users' processes alone.
func (sc *Sidecar) own(l net.Listener, at string) net.Listener {
	return &owned{Listener: l, sc: sc, at: at, saw: map[string]bool{}}
}

// Accept implements net.Listener.
func (l *owned) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || conn.LocalAddr().Network() == "unix" {
			return conn, err
		}
		uid, err := ownerOf(conn)
		if err == nil && slices.Contains(l.sc.host.UIDs, uid) {
			return conn, nil
		}
		who := "user " + strconv.FormatUint(uint64(uid), 10)
		if err != nil {
			who = "unknown user"
		}
		l.refused(who, err)
		_ = conn.Close()
	}
}

// refused records a user once, for others may knock as often as they like.
func (l *owned) refused(who string, err error) {
	l.mu.Lock()
	known := l.saw[who]
	l.saw[who] = known || len(l.saw) < maxSources
	l.mu.Unlock()
	l.sc.log.Warn("a process may not use the program's port; name its user in uids if it should", "at", l.at, "who", who, "error", err)
	if known {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	event := auditlog.Suspicious("sidecar.process", l.at, auditlog.Warning)
	event.Outcome, event.Actor.Client = auditlog.Blocked, who
	if err := l.sc.host.Audit.Append(ctx, event); err != nil {
		l.sc.log.Error("a refusal could not be recorded", "error", err) // it stays refused
	}
}

// What linux/inet_diag.h and linux/sock_diag.h say.
const (
	sockDiagByFamily = 20
	diagRequest      = 56 // bytes of struct inet_diag_req_v2
	diagAnswer       = 72 // of struct inet_diag_msg
	stateListen      = 10 // TCP_LISTEN
)

var errNoOwner = errors.New("the kernel does not say whose the connection is; where it cannot, use a unix socket")

// ownerOf asks the kernel whose socket is at the other end of a TCP connection
// on this host. One that its process has left has no owner.
func ownerOf(conn net.Conn) (uint32, error) {
	far, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return 0, err
	}
	near, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNoOwner, err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0, err
	}
	if err := unix.Sendto(fd, diagQuery(far, near), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoOwner, err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNoOwner, err)
	}
	return diagOwner(buf[:n])
}

// diagQuery asks for the socket of that local and that remote address.
func diagQuery(local, remote netip.AddrPort) []byte {
	family := byte(unix.AF_INET6)
	if local.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	q := make([]byte, unix.SizeofNlMsghdr+diagRequest)
	native := binary.NativeEndian
	native.PutUint32(q[0:], uint32(len(q)))
	native.PutUint16(q[4:], sockDiagByFamily)
	native.PutUint16(q[6:], unix.NLM_F_REQUEST)
	r := q[unix.SizeofNlMsghdr:]
	r[0], r[1] = family, syscall.IPPROTO_TCP
	native.PutUint32(r[4:], ^uint32(0)) // any state
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], local.Addr().Unmap().AsSlice())
	copy(r[28:44], remote.Addr().Unmap().AsSlice())
	native.PutUint32(r[48:], ^uint32(0)) // no cookie
	native.PutUint32(r[52:], ^uint32(0))
	return q
}

func diagOwner(answer []byte) (uint32, error) {
	native := binary.NativeEndian
	if len(answer) < unix.SizeofNlMsghdr+diagAnswer || native.Uint16(answer[4:]) != sockDiagByFamily {
		return 0, errNoOwner // among others, that there is no such socket
	}
	m := answer[unix.SizeofNlMsghdr:]
	if m[1] == stateListen { // what the kernel looks for next, when there is no such connection
		return 0, fmt.Errorf("%w: it is gone", errNoOwner)
	}
	if inode := native.Uint32(m[68:]); inode == 0 {
		return 0, fmt.Errorf("%w: its process has left it", errNoOwner) // and the user is then 0
	}
	return native.Uint32(m[64:]), nil
}
