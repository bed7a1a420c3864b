package vaulttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// operation is what a request wants; it is also the capability that it needs.
type operation string

const (
	opRead   operation = "read"
	opList   operation = "list"
	opCreate operation = "create"
	opUpdate operation = "update"
	opPatch  operation = "patch"
	opDelete operation = "delete"
)

// maxBody is Vault's default cap on a request's body.
const maxBody = 32 << 20

// request is one request, parsed.
type request struct {
	op        operation
	path      string // below /v1/; ends in a slash for lists
	data      params // the body; the query too where there is no body
	wrapTTL   time.Duration
	bearer    string // the client token as sent
	remote    netip.Addr
	namespace string

	token *token // the client token, once it is known to be good
	mount *mount // the mount that the path leads to
	rest  string // path below the mount
	args  map[string]string
}

// arg returns a named segment of the path: see router.
func (r *request) arg(name string) string { return r.args[name] }

// parseRequest reads everything Vault looks at. The body has been read already.
func parseRequest(r *http.Request, body []byte) (*request, error) {
	req := &request{
		path:      strings.TrimPrefix(r.URL.Path, "/v1/"),
		data:      params{},
		bearer:    clientToken(r),
		namespace: r.Header.Get("X-Vault-Namespace"),
	}
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		req.remote = addr.Addr().Unmap()
	}

	query := r.URL.Query()
	switch r.Method {
	case http.MethodGet:
		req.op = opRead
		if list, _ := strconv.ParseBool(query.Get("list")); list {
			req.op = opList
		}
	case "LIST":
		req.op = opList
	case http.MethodPost, http.MethodPut:
		req.op = opUpdate
	case http.MethodPatch:
		req.op = opPatch
	case http.MethodDelete:
		req.op = opDelete
	default:
		return nil, errUnsupportedOp
	}

	switch req.op {
	case opUpdate, opPatch:
		if req.op == opPatch {
			if err := checkPatchType(r.Header.Get("Content-Type")); err != nil {
				return nil, err
			}
		}
		data, err := parseBody(body)
		if err != nil {
			return nil, err
		}
		req.data = data
	default:
		for name, values := range query {
			if name != "list" {
				req.data[name] = values[0]
			}
		}
	}
	if req.op == opList && !strings.HasSuffix(req.path, "/") {
		req.path += "/"
	}

	ttl, err := parseWrapTTL(r.Header.Get("X-Vault-Wrap-TTL"))
	if err != nil {
		return nil, refuse("error parsing X-Vault-Wrap-TTL header: %v", err)
	}
	req.wrapTTL = ttl
	return req, nil
}

func clientToken(r *http.Request) string {
	if t := r.Header.Get("X-Vault-Token"); t != "" {
		return t
	}
	scheme, t, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(t)
	}
	return ""
}

func checkPatchType(contentType string) error {
	const want = "application/merge-patch+json"
	got, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return refuse("%v", err)
	}
	if got != want {
		return refuseWith(http.StatusUnsupportedMediaType, "PATCH requires Content-Type of %s, provided %s", want, got)
	}
	return nil
}

func parseBody(body []byte) (params, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return params{}, nil
	}
	if err := scanContainers(body); err != nil {
		return nil, refuseWith(http.StatusInternalServerError, "%v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // a number keeps its exact text on its way through
	var data map[string]any
	if err := dec.Decode(&data); err != nil {
		return nil, refuse("error parsing JSON: failed to parse JSON input: %v", err)
	}
	if data == nil {
		data = params{}
	}
	return data, nil
}

// scanContainers looks over the tokens of an object or array. Vault does so
// before it parses, to bound the depth; it is a lenient look, and what it finds
// wrong is a 500.
func scanContainers(body []byte) error {
	body = bytes.TrimSpace(body)
	if body[0] != '{' && body[0] != '[' {
		return nil
	}
	depth, comma := 0, false
	for i := 0; i < len(body); i++ {
		c := body[i]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		case depth == 0 && i > 0:
			return fmt.Errorf("invalid character '%c' after top-level value", c)
		case c == '}' && comma:
			return errors.New("invalid character '}' after object key-value pair")
		case c == ']' && comma:
			return errors.New("invalid character ']' after array element")
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			depth--
		case c == '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		case strings.IndexByte(",:-0123456789", c) >= 0:
			for c != ',' && c != ':' && i+1 < len(body) && strings.IndexByte("+-.eE0123456789", body[i+1]) >= 0 {
				i++
			}
		default:
			word := literal(body[i:])
			if word == 0 {
				return fmt.Errorf("invalid character '%c' looking for beginning of value", c)
			}
			i += word - 1
		}
		comma = c == ','
	}
	if depth > 0 {
		return errors.New("malformed JSON, unclosed containers")
	}
	return nil
}

// literal is the length of the true, false or null that a text begins with.
func literal(text []byte) int {
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(text, []byte(word)) {
			return len(word)
		}
	}
	return 0
}

// parseWrapTTL parses seconds, or a duration with its unit.
func parseWrapTTL(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, err
	}
	if d < 0 {
		return 0, errors.New("requested wrap ttl cannot be negative")
	}
	return d, nil
}

// parseDuration parses what Vault takes for a duration: seconds, a Go duration,
// or days as in 30d.
func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err != nil {
			return 0, err
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(s)
}

// params are the fields of a request. Their values come from JSON, with numbers
// as json.Number, or from a query.
type params map[string]any

func (p params) has(name string) bool { _, ok := p[name]; return ok }

func (p params) str(name string) string {
	switch v := p[name].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

func (p params) boolean(name string, fallback bool) (bool, error) {
	switch v := p[name].(type) {
	case nil:
		return fallback, nil
	case bool:
		return v, nil
	default:
		b, err := strconv.ParseBool(fmt.Sprint(v))
		if err != nil {
			return false, invalidField(name, "cannot parse '' as bool: %v", err)
		}
		return b, nil
	}
}

func (p params) integer(name string, fallback int) (int, error) {
	v, ok := p[name]
	if !ok || v == nil {
		return fallback, nil
	}
	n, err := strconv.ParseInt(fmt.Sprint(v), 0, 0)
	if err != nil {
		return 0, invalidField(name, "cannot parse '' as int: %v", err)
	}
	return int(n), nil
}

func (p params) duration(name string, fallback time.Duration) (time.Duration, error) {
	v, ok := p[name]
	if !ok || v == nil {
		return fallback, nil
	}
	d, err := p.signedDuration(name)
	if err == nil && d < 0 {
		return 0, invalidField(name, "cannot provide negative value '%d'", seconds(d))
	}
	return d, err
}

// signedDuration is duration for the few fields where less than nothing means something.
func (p params) signedDuration(name string) (time.Duration, error) {
	switch v := p[name].(type) {
	case string, json.Number, int:
		d, err := parseDuration(fmt.Sprint(v))
		if err != nil {
			return 0, invalidField(name, "%v", err)
		}
		return d, nil
	default:
		return 0, invalidField(name, "could not parse duration from input")
	}
}

// list reads a list of strings, or one string with commas.
func (p params) list(name string) []string {
	list := []string{}
	switch v := p[name].(type) {
	case []any:
		for _, e := range v {
			list = append(list, fmt.Sprint(e))
		}
	case []string:
		list = append(list, v...)
	case string:
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
	}
	return list
}

func (p params) integers(name string) ([]int, error) {
	var list []int
	for _, s := range p.list(name) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, invalidField(name, "cannot parse '' as int: %v", err)
		}
		list = append(list, n)
	}
	if n, ok := p[name].(json.Number); ok {
		i, err := strconv.Atoi(n.String())
		return []int{i}, err
	}
	return list, nil
}

// object reads a JSON object; ok is false where there is none.
func (p params) object(name string) (obj map[string]any, ok bool, err error) {
	v, ok := p[name]
	if !ok || v == nil {
		return nil, false, nil
	}
	if obj, ok := v.(map[string]any); ok {
		return obj, true, nil
	}
	if list, ok := v.([]any); ok {
		if len(list) == 0 {
			return map[string]any{}, true, nil
		}
		return nil, false, invalidField(name, "'[0]' expected a map, got '%s'", kindOf(list[0]))
	}
	return nil, false, invalidField(name, "'' expected a map, got '%s'", kindOf(v))
}

func kindOf(v any) string {
	switch v.(type) {
	case string, json.Number:
		return "string"
	case bool:
		return "bool"
	}
	return fmt.Sprintf("%T", v)
}

// strMap reads an object of strings.
func (p params) strMap(name string) (map[string]string, error) {
	obj, ok, err := p.object(name)
	if !ok || err != nil {
		return nil, err
	}
	m := make(map[string]string, len(obj))
	for k, v := range obj {
		m[k] = fmt.Sprint(v)
	}
	return m, nil
}

// prefixes reads CIDR blocks; a bare address is a block of one.
func (p params) prefixes(name string) ([]netip.Prefix, error) { return parsePrefixes(p.list(name)) }

func parsePrefixes(list []string) ([]netip.Prefix, error) {
	prefixes := []netip.Prefix{}
	for _, s := range list {
		if addr, err := netip.ParseAddr(s); err == nil {
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", s)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

func invalidField(name, format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, text: fmt.Sprintf("error converting input for field %q: %s", name, fmt.Sprintf(format, args...)), field: true}
}
