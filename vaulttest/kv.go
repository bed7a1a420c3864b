package vaulttest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// newKV makes the engine of the version that the mount's options say.
func newKV(c *core, m *mount) backend {
	if m.options["version"] == "2" {
		return newKV2(c)
	}
	return newKV1(c, m)
}

// kv2 is a versioned key/value engine.
type kv2 struct {
	routed
	core    *core
	config  kvConfig
	secrets map[string]*kvSecret
}

// kvConfig are the limits of an engine or of a secret. Zero values are no limit.
type kvConfig struct {
	maxVersions int
	casRequired bool
	deleteAfter time.Duration
}

// defaultMaxVersions holds where nothing else is set.
const defaultMaxVersions = 10

// kvSecret is a secret with its versions.
type kvSecret struct {
	config           kvConfig
	custom           map[string]string
	created, updated time.Time
	current, oldest  int
	versions         map[int]*kvVersion
	updatedBy        *kvActor
}

type kvVersion struct {
	data                 map[string]any
	created              time.Time
	deletion             time.Time // zero: none; may lie ahead
	destroyed            bool
	createdBy, deletedBy *kvActor
}

// kvActor is who did something to a version.
type kvActor struct {
	Actor     string    `json:"actor"`
	Operation operation `json:"operation"`
	ClientID  string    `json:"client_id"`
}

func newKV2(c *core) backend {
	b := &kv2{core: c, secrets: map[string]*kvSecret{}}
	b.routes = []route{
		{pattern: "config", read: b.readConfig, write: b.writeConfig},
		{pattern: "data/{path...}", read: b.read, write: b.write, patch: b.patch, delete: b.deleteLatest},
		{pattern: "delete/{path...}", write: b.deleteVersions},
		{pattern: "undelete/{path...}", write: b.undelete},
		{pattern: "destroy/{path...}", write: b.destroy},
		{pattern: "subkeys/{path...}", read: b.subkeys},
		{pattern: "metadata", list: b.list},
		{pattern: "metadata/{path...}", read: b.readMetadata, list: b.list, write: b.writeMetadata, patch: b.patchMetadata, delete: b.deleteMetadata},
	}
	return b
}

// handle warns those who speak version 1, as Vault does.
func (b *kv2) handle(req *request) (*response, error) {
	verb, path, _ := strings.Cut(req.rest, "/")
	switch {
	case req.op != opList && path == "" && slices.Contains([]string{"data", "metadata"}, req.rest):
		return kvWarning("Non-listing operations on the root of a K/V v2 mount are not supported."), nil
	case !slices.Contains([]string{"config", "data", "delete", "undelete", "destroy", "subkeys", "metadata"}, verb),
		verb == "data" && req.op == opList,
		verb == "config" && req.rest != "config",
		req.op != opList && strings.HasSuffix(req.rest, "/"):
		hint := map[operation]string{opRead: "get", opList: "list", opUpdate: "put", opCreate: "put", opPatch: "patch", opDelete: "delete"}[req.op]
		return kvWarning("Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv " + hint + "' for this operation."), nil
	}
	return b.routed.handle(req)
}

func kvWarning(text string) *response {
	return &response{status: 404, foreign: true, warnings: []string{text}}
}

func (b *kv2) exists(req *request) bool {
	verb, path, _ := strings.Cut(req.rest, "/")
	return (verb != "data" && verb != "metadata") || b.secrets[path] != nil
}

func (b *kv2) actor(req *request) *kvActor {
	return &kvActor{Actor: req.token.displayName, Operation: req.op, ClientID: clientID(req.token)}
}

// clientID is the token's entity, or what stands for one.
func clientID(t *token) string {
	if t.entityID != "" {
		return t.entityID
	}
	return t.accessor
}

func (b *kv2) read(req *request) (*response, error) {
	version, err := req.data.integer("version", 0)
	if err != nil {
		return nil, err
	}
	s := b.secrets[req.arg("path")]
	if s == nil {
		return nil, nil
	}
	n, v := s.version(version)
	if v == nil {
		return nil, nil
	}
	resp := &response{data: map[string]any{"data": nil, "metadata": s.describeVersion(n, v)}}
	if v.gone(b.core.clock.now()) {
		resp.status, resp.foreign = 404, true
		return resp, nil
	}
	resp.data["data"] = v.data
	return resp, nil
}

// version returns a version; 0 stands for the newest.
func (s *kvSecret) version(n int) (int, *kvVersion) {
	if n == 0 {
		n = s.current
	}
	return n, s.versions[n]
}

func (v *kvVersion) gone(now time.Time) bool {
	return v.destroyed || (!v.deletion.IsZero() && !v.deletion.After(now))
}

func (v *kvVersion) deletionTime() string {
	if v.deletion.IsZero() {
		return ""
	}
	return stamp(v.deletion)
}

func (s *kvSecret) describeVersion(n int, v *kvVersion) map[string]any {
	d := map[string]any{
		"created_time":    stamp(v.created),
		"custom_metadata": nil,
		"deletion_time":   v.deletionTime(),
		"destroyed":       v.destroyed,
		"version":         n,
	}
	if s.custom != nil {
		d["custom_metadata"] = s.custom
	}
	return d
}

func (b *kv2) write(req *request) (*response, error) {
	data, _, err := req.data.object("data")
	if err != nil {
		return nil, err
	}
	if !req.data.has("data") {
		return nil, refuse("no data provided")
	}
	if err := b.checkAndSet(req); err != nil {
		return nil, err
	}
	return b.put(req, data)
}

// put adds a version.
func (b *kv2) put(req *request, data map[string]any) (*response, error) {
	path, now := req.arg("path"), b.core.clock.now()
	s := b.secrets[path]
	if s == nil {
		s = newSecret(now)
		b.secrets[path] = s
	}
	v := &kvVersion{data: floats(data), created: now, createdBy: b.actor(req)}
	if after := smallest(b.config.deleteAfter, s.config.deleteAfter); after > 0 {
		v.deletion = now.Add(after)
	}
	n := s.add(v, b.keep(s))
	b.core.rememberAll(v.data)
	return answer(s.describeVersion(n, v))
}

func newSecret(now time.Time) *kvSecret {
	return &kvSecret{created: now, updated: now, versions: map[int]*kvVersion{}}
}

// add appends a version and drops those beyond the newest keep.
func (s *kvSecret) add(v *kvVersion, keep int) int {
	s.current++
	s.versions[s.current] = v
	s.updated, s.updatedBy = v.created, v.createdBy
	for n := range s.versions {
		if n <= s.current-keep {
			delete(s.versions, n)
			s.oldest = s.current - keep + 1
		}
	}
	return s.current
}

// keep is the number of versions to keep of a secret.
func (b *kv2) keep(s *kvSecret) int {
	switch {
	case s.config.maxVersions > 0:
		return s.config.maxVersions
	case b.config.maxVersions > 0:
		return b.config.maxVersions
	}
	return defaultMaxVersions
}

// floats gives numbers the form that this engine's storage keeps: float64.
func floats(data map[string]any) map[string]any {
	body, _ := json.Marshal(data)
	var kept map[string]any
	_ = json.Unmarshal(body, &kept)
	return kept
}

// checkAndSet compares options.cas with the current version.
func (b *kv2) checkAndSet(req *request) error {
	s := b.secrets[req.arg("path")]
	current, required := 0, b.config.casRequired
	if s != nil {
		current, required = s.current, required || s.config.casRequired
	}
	options, _, err := req.data.object("options")
	if err != nil {
		return err
	}
	cas, given := options["cas"]
	if !given {
		if required {
			return refuse("check-and-set parameter required for this call")
		}
		return nil
	}
	n, err := params{"cas": cas}.integer("cas", 0)
	if err != nil {
		return refuse("error parsing check-and-set parameter")
	}
	if n != current {
		return refuse("check-and-set parameter did not match the current version")
	}
	return nil
}

func (b *kv2) patch(req *request) (*response, error) {
	data, ok, err := req.data.object("data")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, refuse("no data provided")
	}
	s := b.secrets[req.arg("path")]
	if s == nil {
		return &response{status: 404, raw: noBody}, nil
	}
	n, v := s.version(0)
	if v == nil {
		return &response{status: 404, raw: noBody}, nil
	}
	if v.gone(b.core.clock.now()) {
		return &response{status: 404, foreign: true, data: s.describeVersion(n, v)}, nil
	}
	if err := b.checkAndSet(req); err != nil {
		return nil, err
	}
	return b.put(req, mergePatch(maps.Clone(v.data), data))
}

// mergePatch applies RFC 7396: null removes, objects merge, the rest replaces.
func mergePatch(into, patch map[string]any) map[string]any {
	if into == nil {
		into = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(into, k)
		case map[string]any:
			old, _ := into[k].(map[string]any)
			into[k] = mergePatch(maps.Clone(old), v)
		default:
			into[k] = v
		}
	}
	return into
}

func (b *kv2) deleteLatest(req *request) (*response, error) {
	if s := b.secrets[req.arg("path")]; s != nil {
		b.softDelete(req, s, s.current)
	}
	return nil, nil
}

func (b *kv2) softDelete(req *request, s *kvSecret, n int) {
	now := b.core.clock.now()
	if v := s.versions[n]; v != nil && !v.gone(now) {
		v.deletion, v.deletedBy = now, b.actor(req)
		s.updatedBy = v.deletedBy
	}
}

// onVersions calls f with each version that the request names.
func (b *kv2) onVersions(req *request, missing string, f func(*kvSecret, int)) (*response, error) {
	list, err := req.data.integers("versions")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, refuse("%s", missing)
	}
	if s := b.secrets[req.arg("path")]; s != nil {
		for _, n := range list {
			if s.versions[n] != nil {
				f(s, n)
			}
		}
	}
	return nil, nil
}

func (b *kv2) deleteVersions(req *request) (*response, error) {
	return b.onVersions(req, "No version number provided", func(s *kvSecret, n int) { b.softDelete(req, s, n) })
}

func (b *kv2) undelete(req *request) (*response, error) {
	return b.onVersions(req, "No version number provided", func(s *kvSecret, n int) {
		if v := s.versions[n]; !v.destroyed {
			v.deletion, v.deletedBy = time.Time{}, nil
			s.updatedBy = b.actor(req)
			s.updatedBy.Operation = "undelete"
		}
	})
}

func (b *kv2) destroy(req *request) (*response, error) {
	return b.onVersions(req, "no version number provided", func(s *kvSecret, n int) {
		v := s.versions[n]
		v.data, v.destroyed = nil, true
	})
}

func (b *kv2) subkeys(req *request) (*response, error) {
	resp, err := b.read(req)
	if err != nil || resp == nil {
		return resp, err
	}
	data, _ := resp.data["data"].(map[string]any)
	delete(resp.data, "data")
	resp.data["subkeys"] = blanked(data)
	return resp, nil
}

// blanked replaces every value that is no object by null.
func blanked(data map[string]any) map[string]any {
	if data == nil {
		return nil
	}
	blank := map[string]any{}
	for k, v := range data {
		blank[k] = nil
		if obj, ok := v.(map[string]any); ok && len(obj) > 0 {
			blank[k] = blanked(obj)
		}
	}
	return blank
}

// children lists what is directly below a path, directories with a slash.
func children[V any](tree map[string]V, dir string) []string {
	if dir != "" && !strings.HasSuffix(dir, "/") {
		dir += "/"
	}
	seen := map[string]bool{}
	for path := range tree {
		if rest, ok := strings.CutPrefix(path, dir); ok && rest != "" {
			name, _, isDir := strings.Cut(rest, "/")
			if isDir {
				name += "/"
			}
			seen[name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
