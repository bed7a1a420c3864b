//go:build !unix

package vault

import "net"

// quiet would report whether an idle connection is still open; this system has
// no way to ask.
func quiet(net.Conn) bool { return true }
