package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// transit is an encryption-as-a-service engine.
type transit struct {
	routed
	core *core
	keys map[string]*transitKey
}

// transitKey is a named key with its versions; versions[0] is version 1.
type transitKey struct {
	name, kind                   string
	versions                     []transitVersion
	minDecrypt, minEncrypt       int
	deletable, exportable, plain bool
}

type transitVersion struct {
	secret  secretKey
	hmac    []byte
	created time.Time
}

func newTransit(c *core, _ *mount) backend {
	b := &transit{core: c, keys: map[string]*transitKey{}}
	b.routes = []route{
		{pattern: "keys", list: b.list},
		{pattern: "keys/{name}", read: b.read, write: b.create, delete: b.remove},
		{pattern: "keys/{name}/config", write: b.configure},
		{pattern: "keys/{name}/rotate", write: b.rotate},
		{pattern: "export/{kind}/{name}", read: b.export},
		{pattern: "export/{kind}/{name}/{version}", read: b.export},
		{pattern: "sign/{name}", write: b.sign},
		{pattern: "sign/{name}/{hash}", write: b.sign},
		{pattern: "verify/{name}", write: b.verify},
		{pattern: "verify/{name}/{hash}", write: b.verify},
		{pattern: "hmac/{name}", write: b.hmac},
		{pattern: "hmac/{name}/{hash}", write: b.hmac},
		{pattern: "encrypt/{name}", write: b.encrypt},
		{pattern: "decrypt/{name}", write: b.decrypt},
	}
	return b
}

// exists tells creating a key from using one, where Vault does.
func (b *transit) exists(req *request) bool {
	for _, pattern := range []string{"keys/{name}", "encrypt/{name}"} {
		if args, ok := match(pattern, req.rest); ok {
			return b.keys[args["name"]] != nil
		}
	}
	return true
}

func (b *transit) list(*request) (*response, error) {
	return keys(slices.Sorted(maps.Keys(b.keys)))
}

func (b *transit) read(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, nil
	}
	return answer(k.describe())
}

func (b *transit) create(req *request) (*response, error) {
	name := req.arg("name")
	if k := b.keys[name]; k != nil {
		return answer(k.describe())
	}
	kind := req.data.str("type")
	if kind == "" {
		kind = "aes256-gcm96"
	}
	exportable, err := req.data.boolean("exportable", false)
	if err != nil {
		return nil, err
	}
	k, err := b.newKey(name, kind)
	if err != nil {
		return nil, err
	}
	k.exportable = exportable
	return answer(k.describe())
}

func (b *transit) newKey(name, kind string) (*transitKey, error) {
	if keyKinds[kind] == nil {
		return nil, refuse("unknown key type %s", kind)
	}
	k := &transitKey{name: name, kind: kind, minDecrypt: 1}
	if err := k.rotate(b.core.clock.now()); err != nil {
		return nil, err
	}
	b.keys[name] = k
	return k, nil
}

func (k *transitKey) rotate(now time.Time) error {
	secret, err := keyKinds[k.kind]()
	if err != nil {
		return fail("%v", err)
	}
	v := transitVersion{secret: secret, hmac: make([]byte, 32), created: now}
	rand.Read(v.hmac)
	k.versions = append(k.versions, v)
	return nil
}

func (k *transitKey) describe() map[string]any {
	versions := map[string]any{}
	for n := k.minDecrypt; n <= len(k.versions); n++ {
		v := k.versions[n-1]
		versions[strconv.Itoa(n)] = v.created.Unix()
		if pub, ok := v.secret.(asymmetric); ok {
			versions[strconv.Itoa(n)] = map[string]any{
				"certificate_chain": "", "hybrid_public_key": "",
				"creation_time": stamp(v.created), "name": pub.curve(), "public_key": pub.public(),
			}
		}
	}
	_, signs := k.latest().(signer)
	_, encrypts := k.latest().(sealer)
	return map[string]any{
		"allow_plaintext_backup": k.plain,
		"auto_rotate_period":     0,
		"deletion_allowed":       k.deletable,
		"derived":                false,
		"exportable":             k.exportable,
		"imported_key":           false,
		"keys":                   versions,
		"latest_version":         len(k.versions),
		"min_available_version":  0,
		"min_decryption_version": k.minDecrypt,
		"min_encryption_version": k.minEncrypt,
		"name":                   k.name,
		"supports_decryption":    encrypts,
		"supports_derivation":    k.kind == "ed25519" || k.kind == "aes256-gcm96",
		"supports_encryption":    encrypts,
		"supports_signing":       signs,
		"type":                   k.kind,
	}
}

func (k *transitKey) latest() secretKey { return k.versions[len(k.versions)-1].secret }

func (b *transit) remove(req *request) (*response, error) {
	name := req.arg("name")
	switch k := b.keys[name]; {
	case k == nil:
		return nil, refuse("error deleting policy %s: could not delete key; not found", name)
	case !k.deletable:
		return nil, refuse("error deleting policy %s: deletion is not allowed for this key", name)
	}
	delete(b.keys, name)
	return nil, nil
}

func (b *transit) rotate(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, refuse("key not found")
	}
	if err := k.rotate(b.core.clock.now()); err != nil {
		return nil, err
	}
	return answer(k.describe())
}

func (b *transit) configure(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, refuse("no existing key named %s could be found", req.arg("name"))
	}
	next, p := *k, req.data
	var err error
	if next.minDecrypt, err = p.integer("min_decryption_version", k.minDecrypt); err != nil {
		return nil, err
	}
	if next.minEncrypt, err = p.integer("min_encryption_version", k.minEncrypt); err != nil {
		return nil, err
	}
	next.minDecrypt = max(next.minDecrypt, 1)
	if newest := len(k.versions); next.minDecrypt > newest {
		return nil, refuse("cannot set min decryption version of %d, latest key version is %d", next.minDecrypt, newest)
	} else if next.minEncrypt > newest {
		return nil, refuse("cannot set min encryption version of %d, latest key version is %d", next.minEncrypt, newest)
	}
	if next.deletable, err = p.boolean("deletion_allowed", k.deletable); err != nil {
		return nil, err
	}
	for name, flag := range map[string]*bool{"exportable": &next.exportable, "allow_plaintext_backup": &next.plain} {
		on, err := p.boolean(name, false)
		if err != nil {
			return nil, err
		}
		*flag = *flag || on // neither can be taken back
	}
	*k = next
	return answer(k.describe())
}

func (b *transit) export(req *request) (*response, error) {
	kind := req.arg("kind")
	if !slices.Contains([]string{"signing-key", "encryption-key", "hmac-key", "public-key"}, kind) {
		return nil, refuse("invalid export type: %s", kind)
	}
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, nil
	}
	if !k.exportable && kind != "public-key" {
		return nil, refuse("private key material is not exportable")
	}
	first, last := k.minDecrypt, len(k.versions)
	if v := req.arg("version"); v == "latest" {
		first = last
	} else if v != "" {
		n, err := strconv.Atoi(v)
		switch {
		case err != nil:
			return nil, refuse("invalid key version")
		case n < k.minDecrypt:
			return nil, refuse("version for export is below minimum decryption version")
		case n > last:
			return nil, refuse("version does not exist or cannot be found")
		}
		first, last = n, n
	}
	exported := map[string]any{}
	for n := first; n <= last; n++ {
		text, err := k.versions[n-1].export(kind)
		if err != nil {
			return nil, err
		}
		exported[strconv.Itoa(n)] = text
		if kind != "public-key" {
			b.core.remember(text)
		}
	}
	return answer(map[string]any{"name": k.name, "type": k.kind, "keys": exported})
}

func (v transitVersion) export(kind string) (string, error) {
	switch kind {
	case "hmac-key":
		return base64.StdEncoding.EncodeToString(v.hmac), nil
	case "public-key":
		if pub, ok := v.secret.(asymmetric); ok {
			return pub.public(), nil
		}
		return "", refuse("unknown key type %T for export type %s", v.secret, kind)
	case "signing-key":
		if _, ok := v.secret.(signer); !ok {
			return "", refuse("signing not supported for the key")
		}
	case "encryption-key":
		if _, ok := v.secret.(sealer); !ok {
			return "", refuse("encryption not supported for the key")
		}
	}
	return v.secret.private(), nil
}

// pick returns the version of a key to sign or encrypt with.
func (k *transitKey) pick(p params) (int, transitVersion, error) {
	n, err := p.integer("key_version", 0)
	if err != nil {
		return 0, transitVersion{}, err
	}
	switch {
	case n == 0:
		n = len(k.versions)
	case n < 0:
		return 0, transitVersion{}, refuse("cannot sign or encrypt: key version is negative")
	case n > len(k.versions):
		return 0, transitVersion{}, fail("requested version for signing is higher than the latest key version")
	case n < k.minDecrypt:
		return 0, transitVersion{}, fail("no such key version")
	case n < k.minEncrypt:
		return 0, transitVersion{}, refuse("requested version for signing is less than the minimum encryption key version")
	}
	return n, k.versions[n-1], nil
}

// parse takes vault:v1:… apart, and finds the version of the key.
func (k *transitKey) parse(what, text string) (transitVersion, string, error) {
	rest, ok := strings.CutPrefix(text, "vault:v")
	if !ok {
		return transitVersion{}, "", refuse("invalid %s: no prefix", what)
	}
	number, payload, ok := strings.Cut(rest, ":")
	n, err := strconv.Atoi(number)
	switch {
	case !ok:
		return transitVersion{}, "", refuse("invalid %s: wrong number of fields", what)
	case err != nil:
		return transitVersion{}, "", refuse("invalid %s: version number could not be decoded", what)
	case n > len(k.versions):
		return transitVersion{}, "", refuse("invalid %s: version is too new", what)
	case n < k.minDecrypt:
		return transitVersion{}, "", refuse("ciphertext or signature version is disallowed by policy (too old)")
	}
	return k.versions[n-1], payload, nil
}

func prefixed(n int, payload string) string { return fmt.Sprintf("vault:v%d:%s", n, payload) }

// batchOf runs f over the elements of batch_input, or over the request itself.
func batchOf(req *request, f func(params) (map[string]any, error)) (*response, error) {
	raw, isBatch := req.data["batch_input"]
	if !isBatch {
		out, err := f(req.data)
		if err != nil {
			return nil, err
		}
		return answer(out)
	}
	items, _ := raw.([]any)
	if len(items) == 0 {
		return nil, refuse("missing batch input to process")
	}
	var results []any
	failed := 0
	for _, item := range items {
		fields, _ := item.(map[string]any)
		p := params(maps.Clone(req.data))
		maps.Copy(p, fields)
		out, err := f(p)
		if err != nil {
			failed++
			out = map[string]any{"error": err.Error()}
		}
		out["reference"] = p.str("reference")
		results = append(results, out)
	}
	resp := &response{data: map[string]any{"batch_results": results}}
	if failed == len(items) {
		resp.status = 400
	}
	return resp, nil
}

// input decodes a field of base64.
func input(p params, name, complaint string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(p.str(name))
	if err != nil {
		return nil, refuse(complaint, err)
	}
	return b, nil
}

// asNumber keeps an integer an integer through JSON.
func asNumber(n int) json.Number { return json.Number(strconv.Itoa(n)) }
