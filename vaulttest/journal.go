package vaulttest

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is a request that the server received. It holds no token, SecretID or body.
type Request struct {
	Time      time.Time // when it came in, by the server's clock
	Method    string
	Path      string // below /v1/
	Namespace string // the X-Vault-Namespace header
	Conn      int    // the connection that it came on, counted from 1

	// Status is what was answered; 0 if nothing was, or is not yet.
	Status int

	// Accessor is that of the client token, if it was good.
	Accessor string

	// SecretIDAccessor is, for a login, that of the SecretID sent, also where it
	// was spent already. It tells logins per SecretID without telling the SecretID.
	SecretIDAccessor string
}

// journal lists the requests in the order in which they came in.
type journal struct {
	mu       sync.Mutex
	requests []*Request
	conns    int
}

type connKey struct{}

// connContext numbers a connection.
func (j *journal) connContext(ctx context.Context, _ net.Conn) context.Context {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.conns++
	return context.WithValue(ctx, connKey{}, j.conns)
}

func (j *journal) begin(r *http.Request, now time.Time) *Request {
	conn, _ := r.Context().Value(connKey{}).(int)
	entry := &Request{
		Time:      now,
		Method:    r.Method,
		Path:      strings.TrimPrefix(r.URL.Path, "/v1/"),
		Namespace: r.Header.Get("X-Vault-Namespace"),
		Conn:      conn,
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.requests = append(j.requests, entry)
	return entry
}

// amend fills in what has become known about a request.
func (j *journal) amend(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
}

// Requests returns the requests received so far, in order.
func (s *Server) Requests() []Request {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	list := make([]Request, len(s.journal.requests))
	for i, r := range s.journal.requests {
		list[i] = *r
	}
	return list
}

// ResetRequests empties the journal; requests under way are not listed later.
func (s *Server) ResetRequests() {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.requests = nil
}

// Connections returns how many connections were ever accepted.
func (s *Server) Connections() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.conns
}

// TokenInfo is a live token, without the token itself.
type TokenInfo struct {
	Accessor    string // empty for batch tokens
	DisplayName string
	Path        string // where it was made: auth/approle/login
	Role        string // the AppRole or JWT role that it was made by, or ""
	Policies    []string
	Parent      string    // accessor of the token that made it; "" for orphans
	Created     time.Time // by the server's clock
	Expires     time.Time // zero: never
	Wrapping    bool      // it only stands for a wrapped answer
}

// Tokens returns the live tokens, the root token included, by age.
func (s *Server) Tokens() []TokenInfo {
	c := s.vault()
	var list []TokenInfo
	c.locked(func() {
		c.expireLocked()
		for _, t := range c.tokens.ids {
			info := TokenInfo{
				Accessor: t.accessor, DisplayName: t.displayName, Path: t.path, Role: t.meta["role_name"],
				Policies: slices.Clone(t.policies), Created: t.created, Expires: t.expires, Wrapping: t.wrapped != nil,
			}
			if info.Role == "" && t.issuer != nil {
				info.Role = t.meta["role"]
			}
			if p := c.tokens.ids[t.parent]; p != nil {
				info.Parent = p.accessor
			}
			list = append(list, info)
		}
	})
	slices.SortFunc(list, func(a, b TokenInfo) int { return a.Created.Compare(b.Created) })
	return list
}

// SecretValues returns every secret that was handed out or stored since the last
// Wipe, sorted: tokens, SecretIDs, unseal keys, and the strings in KV data and
// credentials, usernames excepted. A leak test looks for them in whatever the
// code under test has written; it had better give its secrets long values.
func (s *Server) SecretValues() []string {
	c := s.vault()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.secrets))
}
