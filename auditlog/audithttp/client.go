package audithttp

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientOf returns the address that a request came from, and whether a proxy
// that is trusted has handed it on.
//
// What proxies say in X-Forwarded-For is read from its end, where the nearest
// one has written: each entry counts if the address before it was a trusted
// proxy's. Everything further left is whatever the client cared to send.
func clientOf(r *http.Request, trusted []netip.Prefix) (client string, proxied bool) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr // a unix socket has "@" or nothing
	}
	at, err := netip.ParseAddr(host)
	if err != nil {
		return host, false
	}
	at = at.Unmap()
	entries := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(entries) - 1; isTrusted(at, trusted); i-- {
		proxied = true
		if i < 0 {
			break
		}
		next, err := parseForwarded(strings.TrimSpace(entries[i]))
		if err != nil {
			break
		}
		at = next
	}
	return at.String(), proxied
}

// parseForwarded reads an entry: an address, perhaps with a port.
func parseForwarded(entry string) (netip.Addr, error) {
	if at, err := netip.ParseAddr(entry); err == nil {
		return at.Unmap().WithZone(""), nil
	}
	if withPort, err := netip.ParseAddrPort(entry); err == nil {
		return withPort.Addr().Unmap().WithZone(""), nil
	}
	at, err := netip.ParseAddr(strings.Trim(entry, "[]"))
	return at.Unmap().WithZone(""), err
}

func isTrusted(at netip.Addr, trusted []netip.Prefix) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(at) })
}
