//go:build !linux

package audithttp

import (
	"errors"
	"net"
)

const hasPeerCredentials = false

func peerUID(*net.UnixConn) (uint32, error) { return 0, errors.ErrUnsupported }
