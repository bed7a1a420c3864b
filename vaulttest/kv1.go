package vaulttest

import "strings"

// kv1 is an unversioned key/value engine. The cubbyhole is one for every token.
type kv1 struct {
	routed
	core   *core
	mount  *mount
	leased bool                                     // answers carry the TTL as lease_duration
	store  func(*request) map[string]map[string]any // the secrets that a request is about
}

func newKV1(c *core, m *mount) backend {
	secrets := map[string]map[string]any{}
	b := &kv1{core: c, mount: m, leased: true, store: func(*request) map[string]map[string]any { return secrets }}
	b.setRoutes()
	return b
}

// newCubbyhole makes the engine whose secrets are each token's own, and end with it.
func newCubbyhole(c *core, m *mount) backend {
	b := &kv1{core: c, mount: m, store: func(r *request) map[string]map[string]any { return r.token.cubbyhole }}
	b.setRoutes()
	return b
}

func (b *kv1) setRoutes() {
	b.routes = []route{
		{pattern: "", list: b.list},
		{pattern: "{path...}", read: b.read, list: b.list, write: b.write, delete: b.remove},
	}
}

func (b *kv1) exists(req *request) bool { return b.store(req)[req.rest] != nil }

func (b *kv1) read(req *request) (*response, error) {
	data := b.store(req)[req.arg("path")]
	if data == nil {
		return nil, nil
	}
	resp := &response{data: data}
	if b.leased {
		resp.ttl = b.mount.defaultTTL()
		for _, name := range []string{"ttl", "lease"} {
			if d, err := params(data).duration(name, 0); err == nil && d > 0 {
				resp.ttl = d
				break
			}
		}
	}
	return resp, nil
}

func (b *kv1) write(req *request) (*response, error) {
	if len(req.data) == 0 {
		return nil, refuse("missing data fields")
	}
	if strings.HasSuffix(req.rest, "/") {
		return nil, refuse("cannot write to a path ending in '/'")
	}
	b.store(req)[req.arg("path")] = req.data
	b.core.rememberAll(map[string]any(req.data))
	return nil, nil
}

func (b *kv1) list(req *request) (*response, error) {
	return keys(children(b.store(req), req.arg("path")))
}

func (b *kv1) remove(req *request) (*response, error) {
	delete(b.store(req), req.arg("path"))
	return nil, nil
}
