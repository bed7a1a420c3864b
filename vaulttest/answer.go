package vaulttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// response is what a backend answers. A nil *response is an empty answer: 204
// to a write, 404 to a read.
type response struct {
	data     map[string]any
	auth     *authBlock
	lease    *leaseBlock
	wrap     *wrapBlock
	warnings []string

	status  int           // 0 means 200, or 204 where there is nothing to say
	flat    bool          // repeat data's fields at the top, as some of sys/ does
	raw     any           // answered instead of the envelope
	foreign bool          // leave mount_type empty
	ttl     time.Duration // lease_duration where there is no lease
	engine  string        // mount_type
}

// answer is the common response: data alone.
func answer(data map[string]any) (*response, error) { return &response{data: data}, nil }

// keys answers a list; there is none of nothing.
func keys(names []string) (*response, error) {
	if len(names) == 0 {
		return nil, nil
	}
	return answer(map[string]any{"keys": names})
}

type authBlock struct {
	ClientToken   string            `json:"client_token"`
	Accessor      string            `json:"accessor"`
	Policies      []string          `json:"policies"`
	TokenPolicies []string          `json:"token_policies"`
	Metadata      map[string]string `json:"metadata"`
	LeaseDuration int64             `json:"lease_duration"`
	Renewable     bool              `json:"renewable"`
	EntityID      string            `json:"entity_id"`
	TokenType     string            `json:"token_type"`
	Orphan        bool              `json:"orphan"`
	MFA           any               `json:"mfa_requirement"`
	NumUses       int               `json:"num_uses"`
}

type leaseBlock struct {
	id        string
	renewable bool
	ttl       time.Duration
}

type wrapBlock struct {
	Token           string `json:"token"`
	Accessor        string `json:"accessor"`
	TTL             int64  `json:"ttl"`
	CreationTime    string `json:"creation_time"`
	CreationPath    string `json:"creation_path"`
	WrappedAccessor string `json:"wrapped_accessor,omitempty"`
}

// envelope is the JSON form of a response, in Vault's order.
type envelope struct {
	RequestID     string         `json:"request_id"`
	LeaseID       string         `json:"lease_id"`
	Renewable     bool           `json:"renewable"`
	LeaseDuration int64          `json:"lease_duration"`
	Data          map[string]any `json:"data"`
	WrapInfo      *wrapBlock     `json:"wrap_info"`
	Warnings      []string       `json:"warnings"`
	Auth          *authBlock     `json:"auth"`
	MountType     string         `json:"mount_type"`
}

func (r *response) envelope() envelope {
	e := envelope{
		RequestID:     r.requestID(),
		LeaseDuration: int64(r.ttl.Seconds()),
		Data:          r.data,
		WrapInfo:      r.wrap,
		Warnings:      r.warnings,
		Auth:          r.auth,
		MountType:     r.engine,
	}
	if r.lease != nil {
		e.LeaseID, e.Renewable, e.LeaseDuration = r.lease.id, r.lease.renewable, int64(r.lease.ttl.Seconds())
	}
	return e
}

// requestID is empty where the answer is a wrapping token: the id is inside.
func (r *response) requestID() string {
	if r.wrap != nil {
		return ""
	}
	return newUUID()
}

// body returns what goes over the wire.
func (r *response) body() any {
	if r.raw != nil {
		return r.raw
	}
	e := r.envelope()
	if !r.flat || r.data == nil {
		return e
	}
	// The fields of data come first, and the envelope wins where names collide.
	merged := map[string]any{}
	for k, v := range r.data {
		merged[k] = v
	}
	merged["request_id"], merged["lease_id"], merged["renewable"] = e.RequestID, e.LeaseID, e.Renewable
	merged["lease_duration"], merged["data"], merged["wrap_info"] = e.LeaseDuration, e.Data, e.WrapInfo
	merged["warnings"], merged["auth"], merged["mount_type"] = e.Warnings, e.Auth, e.MountType
	return merged
}

// apiError is an error as a client sees it.
type apiError struct {
	status int
	text   string
	field  bool // a field of the request has the wrong type
	listed bool // shown as Vault shows an error that is none of the backend's own answers: in a list of one
}

func (e *apiError) Error() string { return e.text }

// texts returns the strings of the errors array. Vault shows an unlisted error
// of a login bare, so the lists are not made where the error is.
func (e *apiError) texts(login bool) []string {
	switch {
	case e.text == "":
		return []string{}
	case e.listed && !login:
		return []string{listOfOne(e.text)}
	}
	return []string{e.text}
}

// listOfOne is how Vault writes a list of errors that has one.
func listOfOne(text string) string { return "1 error occurred:\n\t* " + text + "\n\n" }

// refuse is a backend's own refusal: 400 and the text as it is.
func refuse(format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, text: fmt.Sprintf(format, args...)}
}

// refuseWith is a refusal with another status.
func refuseWith(status int, format string, args ...any) error {
	return &apiError{status: status, text: fmt.Sprintf(format, args...)}
}

// fail is an error inside a backend: 500, and the text in a list of one.
func fail(format string, args ...any) error {
	return &apiError{status: http.StatusInternalServerError, text: fmt.Sprintf(format, args...), listed: true}
}

var (
	errSealed          = &apiError{status: http.StatusServiceUnavailable, text: "Vault is sealed"}
	errNoToken         = &apiError{status: http.StatusForbidden, text: "permission denied"}
	errBadToken        = &apiError{status: http.StatusForbidden, text: "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"}
	errDenied          = &apiError{status: http.StatusForbidden, text: "permission denied", listed: true}
	errUnsupportedPath = &apiError{status: http.StatusNotFound, text: "unsupported path", listed: true}
	errUnsupportedOp   = &apiError{status: http.StatusMethodNotAllowed, text: "unsupported operation", listed: true}
	errNoWrapToken     = &apiError{status: http.StatusForbidden, text: "error validating wrapping token: token is empty"}
)

func errNoRoute(path string) error {
	return refuseWith(http.StatusNotFound, "no handler for route %q. route entry not found.", path)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func writeErrors(w http.ResponseWriter, status int, texts ...string) {
	if texts == nil {
		texts = []string{}
	}
	writeJSON(w, status, map[string][]string{"errors": texts})
}

// humanDuration writes a duration without its zero parts: 2h, 30m, 1h0m5s.
func humanDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
