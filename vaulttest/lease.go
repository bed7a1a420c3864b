package vaulttest

import (
	"fmt"
	"strings"
	"time"
)

// LeaseHandler makes the credentials of one path, such as database/creds/mcp-hr,
// as a secrets engine would; for the database engine itself, see [Database]. Create is required. The functions may be called
// from several goroutines, and may use the server themselves.
type LeaseHandler struct {
	// Create makes a credential. Its error is answered as the engine's, with
	// status 500 and its text.
	Create func() (Credential, error)

	// Renew, if set, is told of every renewal, with the lease's id and its new
	// TTL. An error refuses the renewal, with status 500 and its text.
	Renew func(leaseID string, ttl time.Duration) error

	// Revoke, if set, is told of the end of every lease, once: revoked by
	// itself, with its token, with its mount, or expired.
	Revoke func(leaseID string)
}

// Credential is what a lease is for.
type Credential struct {
	// Data is answered as it is: username and password, usually. Its strings
	// become part of [Server.SecretValues], all but the username.
	Data map[string]any

	// TTL is the lease's duration, and what a renewal gives if it asks for
	// nothing else; 0 means one hour. Vault counts in seconds.
	TTL time.Duration

	// MaxTTL is the age beyond which no renewal goes; 0 means the mount's, 768 hours.
	MaxTTL time.Duration

	// Fixed makes the lease one that cannot be renewed.
	Fixed bool
}

// lease is a lease on a credential.
type lease struct {
	id               string
	token            *token
	mount            *mount
	handler          LeaseHandler
	ttl, max         time.Duration
	created, renewed time.Time
	expires          time.Time
	renewable        bool
}

// HandleLease sets the function that makes credentials at a path, such as
// database/creds/mcp-hr. A database engine is mounted at the path's first
// segment if nothing is; it panics below a mount of another kind. The function
// outlives [Server.Wipe], as a database does.
func (s *Server) HandleLease(path string, h LeaseHandler) {
	path = strings.Trim(path, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
	s.core.locked(func() { s.core.handleLease(path, h) })
}

func (c *core) handleLease(path string, h LeaseHandler) {
	c.handlers[path] = h
	m := c.mounts.lookup(path)
	if m == nil {
		first, _, _ := strings.Cut(path, "/")
		c.mounts.add(&mount{path: first + "/", kind: "database"})
		return
	}
	switch m.backend.(type) {
	case *leaseEngine, *database:
	default:
		panic(fmt.Sprintf("vaulttest: %s is below a mount of type %s", path, m.kind))
	}
}

// leaseEngine is a secrets engine whose credentials come from handlers. What is
// written to it, connections and roles, is kept and given back.
type leaseEngine struct {
	routed
	core    *core
	mount   *mount
	entries map[string]map[string]any
}

func newLeaseEngine(c *core, m *mount) backend {
	b := &leaseEngine{core: c, mount: m, entries: map[string]map[string]any{}}
	b.routes = []route{
		{pattern: "config", list: b.list},
		{pattern: "roles", list: b.list},
		{pattern: "config/{name}", read: b.read, write: b.write, delete: b.remove},
		{pattern: "roles/{name}", read: b.read, write: b.write, delete: b.remove},
		{pattern: "{path...}", read: b.issue, write: b.issue},
	}
	return b
}

func (b *leaseEngine) list(req *request) (*response, error) {
	return keys(children(b.entries, req.rest))
}

func (b *leaseEngine) read(req *request) (*response, error) {
	if e := b.entries[req.rest]; e != nil {
		return answer(e)
	}
	return nil, nil
}

func (b *leaseEngine) write(req *request) (*response, error) {
	b.entries[req.rest] = req.data
	return nil, nil
}

func (b *leaseEngine) remove(req *request) (*response, error) {
	delete(b.entries, req.rest)
	return nil, nil
}

// issue makes a credential by the handler of its path.
func (b *leaseEngine) issue(req *request) (*response, error) {
	h, ok := b.core.handlers[req.path]
	if !ok {
		name := req.rest[strings.LastIndexByte(req.rest, '/')+1:]
		return nil, refuse("role %q not found", name)
	}
	return b.lease(req, h)
}

// lease makes a credential by a handler, and its lease.
func (b *leaseEngine) lease(req *request, h LeaseHandler) (*response, error) {
	var cred Credential
	var err error
	b.core.outside(func() { cred, err = h.Create() })
	if err != nil {
		return nil, fail("%v", err)
	}
	now := b.core.clock.now()
	l := &lease{
		id: req.path + "/" + newName(24), token: req.token, mount: b.mount, handler: h,
		ttl: cred.TTL, max: cred.MaxTTL, created: now, renewable: !cred.Fixed,
	}
	if l.ttl == 0 {
		l.ttl = time.Hour
	}
	ttl, warnings, err := l.grant(0).lifetime(now)
	if err != nil {
		return nil, err
	}
	if req.token.kind == batch { // a lease cannot outlive a batch token, which cannot revoke it
		ttl = min(ttl, req.token.expires.Sub(now).Truncate(time.Second))
	}
	b.core.rememberAll(cred.Data)
	l.expires = now.Add(ttl)
	if b.core.tokens.ids[req.token.id] != req.token {
		b.core.tell(l) // the token was revoked while the credential was being made
		return nil, errBadToken
	}
	b.core.leases[l.id] = l
	b.core.alarm.set(l.expires)
	return &response{data: cred.Data, lease: &leaseBlock{id: l.id, renewable: l.renewable, ttl: ttl}, warnings: warnings}, nil
}

func (l *lease) grant(increment time.Duration) grant {
	return grant{
		limits:     tokenLimits{ttl: l.ttl, max: l.max},
		increment:  increment,
		start:      l.created,
		defaultTTL: l.mount.defaultTTL(),
		maxTTL:     l.mount.maxTTL(),
	}
}

// renewLease extends a lease; an increment of 0 asks for its own TTL.
func (c *core) renewLease(id string, increment time.Duration) (*response, error) {
	l := c.leases[id]
	if l == nil {
		return nil, refuse("lease not found")
	}
	if !l.renewable {
		return nil, refuse("lease is not renewable")
	}
	now := c.clock.now()
	ttl, warnings, err := l.grant(increment).lifetime(now)
	if err != nil {
		return nil, err
	}
	if l.handler.Renew != nil {
		c.outside(func() { err = l.handler.Renew(id, ttl) })
		if err != nil {
			return nil, fail("failed to renew entry: %v", err)
		}
		if c.leases[id] != l {
			return nil, refuse("lease not found")
		}
	}
	l.renewed, l.expires = now, now.Add(ttl)
	c.alarm.set(l.expires)
	return &response{lease: &leaseBlock{id: id, renewable: true, ttl: ttl}, warnings: warnings}, nil
}

// revokeLease ends a lease. Its handler is told when the lock is free.
func (c *core) revokeLease(l *lease) {
	if c.leases[l.id] != l {
		return
	}
	delete(c.leases, l.id)
	c.tell(l)
}

func (c *core) tell(l *lease) {
	if l.handler.Revoke != nil {
		c.after = append(c.after, func() { l.handler.Revoke(l.id) })
	}
}

func (l *lease) describe(now time.Time) map[string]any {
	d := map[string]any{
		"expire_time":  stamp(l.expires),
		"id":           l.id,
		"issue_time":   stamp(l.created),
		"last_renewal": nil,
		"renewable":    l.renewable,
		"ttl":          seconds(l.expires.Sub(now)),
	}
	if !l.renewed.IsZero() {
		d["last_renewal"] = stamp(l.renewed)
	}
	return d
}
