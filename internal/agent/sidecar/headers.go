package sidecar

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
)

// PeerHeader tells the program who calls: the name under which the caller is
// among the Peers. Plain requests have none.
const PeerHeader = "Phoenix-Peer"

// reserved is how every header begins that only a sidecar may set.
const reserved = "phoenix-"

// fold is what a framework may make of a header's name: CGI and its heirs turn
// what is no letter or digit into one and the same character.
func fold(name string) string { return string(appendFold(nil, name)) }

func appendFold(folded []byte, name string) []byte {
	for _, r := range name {
		switch {
		case 'A' <= r && r <= 'Z':
			folded = append(folded, byte(r)+'a'-'A')
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			folded = append(folded, byte(r))
		default:
			folded = append(folded, '-')
		}
	}
	return folded
}

// identity is a set of headers that speak of who somebody is.
type identity map[string]bool // by folded name

func (i identity) has(name string) bool {
	if len(i) == 0 && (len(name) < len(reserved) || name[0]|0x20 != reserved[0]) {
		return false
	}
	var short [64]byte
	folded := appendFold(short[:0], name)
	return bytes.HasPrefix(folded, []byte(reserved)) || i[string(folded)]
}

// forwarded are the headers in which callers say what they know of theirs.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// hopOnly are headers that HTTP/2 has no use for (RFC 9113, section 8.2.2).
var hopOnly = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"}

// malformed reports whether an HTTP/2 request has what only HTTP/1.1 has a meaning
// for, or none: whoever sends that hopes for a translation.
func malformed(r *http.Request) bool {
	if r.ProtoMajor != 2 {
		return false
	}
	te := r.Header["Te"]
	return slices.ContainsFunc(hopOnly, func(name string) bool { return r.Header[name] != nil }) ||
		len(te) > 1 || len(te) == 1 && te[0] != "trailers" || len(r.Header["Content-Length"]) > 1 ||
		strings.ContainsFunc(r.Method, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c) })
}

// upgrades reports whether a request asks for another protocol that it may have.
// If it may not, it asks no more.
func upgrades(r *http.Request, allowed []string) bool {
	want := r.Header.Values("Upgrade")
	if len(want) == 0 {
		return false
	}
	if len(want) == 1 && slices.ContainsFunc(allowed, func(one string) bool { return strings.EqualFold(one, want[0]) }) {
		return true
	}
	r.Header.Del("Upgrade")
	return false
}
