package vaulttest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxLeaseTTL is the server's default and its cap for every TTL: 32 days.
const maxLeaseTTL = 768 * time.Hour

// core is one Vault: all that Server.Wipe throws away. One lock guards it all;
// a lease's handler, which is a stranger's code, is called without it.
type core struct {
	clock     *clock
	rootToken string
	entity    map[string]string // auth mount accessor and alias name -> entity id
	clusterID string
	cluster   string

	mu        sync.Mutex
	closed    bool
	seal      sealState
	standby   *standby
	mounts    *mountTable
	tokens    tokenStore
	policies  map[string]*policy
	leases    map[string]*lease
	lockouts  map[lockoutKey]*lockout
	audits    map[string]auditDevice
	handlers  map[string]LeaseHandler
	databases map[string]Database
	secrets   map[string]bool   // every secret value ever handed out or stored
	known     map[string]string // every SecretID ever issued -> its accessor
	alarm     alarm
	after     []func() // calls to lease handlers that wait for the lock to be free
}

func newCore(clock *clock, handlers map[string]LeaseHandler, databases map[string]Database) *core {
	c := &core{
		clock:     clock,
		entity:    map[string]string{},
		clusterID: newUUID(),
		cluster:   "vault-cluster-" + newHex(4),
		tokens:    newTokenStore(),
		policies:  builtinPolicies(),
		leases:    map[string]*lease{},
		lockouts:  map[lockoutKey]*lockout{},
		audits:    map[string]auditDevice{},
		handlers:  map[string]LeaseHandler{},
		databases: maps.Clone(databases),
		secrets:   map[string]bool{},
		known:     map[string]string{},
	}
	c.alarm = alarm{clock: clock, ring: c.expire}
	c.seal = newSealState()
	c.remember(c.seal.shares...)
	c.mounts = newMountTable(c)

	// As "vault server -dev -dev-root-token-id" makes it.
	root := c.newToken(&token{kind: service, policies: []string{"root"}, displayName: "token", path: "auth/token/create", orphan: true})
	c.rootToken = root.id
	for path, h := range handlers {
		c.handleLease(path, h)
	}
	return c
}

// outcome is what a request led to, for the wire and for the journal.
type outcome struct {
	resp     *response
	err      error
	login    bool   // errors are shown as a login's
	accessor string // of the client token
}

// serve runs one request. When it returns, the lease handlers have been told
// what they were to be told.
func (c *core) serve(req *request) outcome {
	var out outcome
	c.locked(func() {
		c.expireLocked()
		out = c.dispatch(req)
	})
	return out
}

// locked runs f under the lock, and after it the calls that f left for later.
func (c *core) locked(f func()) {
	c.mu.Lock()
	f()
	after := c.after
	c.after = nil
	c.mu.Unlock()
	for _, call := range after {
		call()
	}
}

// outside runs f, a stranger's code, without the lock. The caller must not rely
// on anything it read before.
func (c *core) outside(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

func (c *core) shutDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.alarm.stop()
}

// dispatch takes a request through Vault's stations: token, policy, backend,
// wrapping.
func (c *core) dispatch(req *request) outcome {
	if c.seal.sealed {
		return outcome{err: errSealed}
	}
	req.mount = c.mounts.lookup(req.path)
	if req.mount != nil {
		req.rest = strings.TrimPrefix(req.path, req.mount.prefix())
	}
	if out, ok := c.serveWrapping(req); ok {
		return out
	}
	if req.mount != nil && req.mount.backend.open(req.rest) {
		return c.serveOpen(req)
	}

	out := outcome{}
	t := c.tokens.byID(req.bearer)
	switch {
	case req.bearer == "":
		out.err = errNoToken
		return out
	case t == nil, t.usesLeft == lastUse:
		out.err = errBadToken
		return out
	}
	out.accessor = t.accessor
	if !t.allowsFrom(req.remote) {
		out.err = errNoToken
		return out
	}
	if c.use(t) {
		defer c.revokeToken(t)
	}
	req.token = t

	if req.op == opUpdate && req.mount != nil {
		if e, ok := req.mount.backend.(existenceChecker); ok && !e.exists(req) {
			req.op = opCreate
		}
	}
	if err := c.authorize(req); err != nil {
		out.err = err
		return out
	}
	if req.mount == nil {
		out.err = errNoRoute(req.path)
		return out
	}
	out.resp, out.err = c.run(req)
	return out
}

// run calls the backend.
func (c *core) run(req *request) (*response, error) {
	resp, err := req.mount.backend.handle(req)
	if err != nil {
		return nil, req.locate(err)
	}
	return c.finish(req, resp)
}

// locate words the complaint about a field: where creating is told from
// updating, Vault has read the fields before, and says less.
func (req *request) locate(err error) error {
	e, ok := err.(*apiError)
	if !ok || !e.field {
		return err
	}
	_, checked := req.mount.backend.(existenceChecker)
	if checked && (req.op == opCreate || req.op == opUpdate) {
		return err
	}
	return refuse("Field validation failed: %s", e.text)
}

// serveOpen runs a request that needs no token: a login, mostly.
func (c *core) serveOpen(req *request) outcome {
	out := outcome{login: true}
	if t := c.tokens.byID(req.bearer); t != nil {
		req.token, out.accessor = t, t.accessor
	}
	out.resp, out.err = c.run(req)
	return out
}

// authorize asks the token's policies.
func (c *core) authorize(req *request) error {
	acl := c.aclOf(req.token)
	if !acl.allows(req) {
		return errDenied
	}
	if req.mount != nil && req.mount.backend.sudo(req.rest) && !acl.sudo(req.path) {
		return errDenied
	}
	return nil
}

// finish puts the response into the form that was asked for.
func (c *core) finish(req *request, resp *response) (*response, error) {
	if resp == nil {
		return nil, nil
	}
	if resp.engine == "" && !resp.foreign && req.mount != nil {
		resp.engine = req.mount.kind
	}
	if req.wrapTTL > 0 && resp.wrap == nil && (resp.data != nil || resp.auth != nil) && resp.status == 0 {
		return c.wrap(resp, req.wrapTTL, req.path), nil
	}
	return resp, nil
}

// remember keeps a secret value for Server.SecretValues.
func (c *core) remember(values ...string) {
	for _, v := range values {
		if v != "" {
			c.secrets[v] = true
		}
	}
}

// rememberAll keeps every string inside a JSON value, except usernames.
func (c *core) rememberAll(v any) {
	switch v := v.(type) {
	case string:
		c.remember(v)
	case map[string]any:
		for name, e := range v {
			if name != "username" {
				c.rememberAll(e)
			}
		}
	case []any:
		for _, e := range v {
			c.rememberAll(e)
		}
	}
}

// entityFor returns the identity that an alias of an auth mount belongs to.
func (c *core) entityFor(m *mount, alias string) string {
	key := m.accessor + "/" + alias
	if c.entity[key] == "" {
		c.entity[key] = newUUID()
	}
	return c.entity[key]
}

// expire ends what is past its time. The alarm rings it.
func (c *core) expire() { c.locked(c.expireLocked) }

func (c *core) expireLocked() {
	if c.closed || !c.alarm.due() {
		return
	}
	now := c.clock.now()
	for _, l := range slices.Collect(maps.Values(c.leases)) {
		if !l.expires.After(now) {
			c.revokeLease(l)
		}
	}
	for _, t := range slices.Collect(maps.Values(c.tokens.ids)) {
		if t.expired(now) {
			c.revokeToken(t)
		}
	}
	for _, m := range c.mounts.byPrefix {
		if b, ok := m.backend.(*database); ok {
			b.rotateDue(now)
		}
	}
	for _, l := range c.leases {
		c.alarm.set(l.expires)
	}
	for _, t := range c.tokens.ids {
		c.alarm.set(t.expires)
	}
}
