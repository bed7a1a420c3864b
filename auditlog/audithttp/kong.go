package audithttp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// kongEntry is what kong.log.serialize makes of an HTTP request, as far as it
// is kept. Names are those of Kong 3.4 to 3.8; request.id came with 3.5. They are
// documented with that function, in Kong's reference of its plugin development
// kit; the plugin posts one, or with max_batch_size an array.
type kongEntry struct {
	Request struct {
		ID      string         `json:"id"`
		Method  string         `json:"method"`
		URI     string         `json:"uri"` // with the query
		Size    json.Number    `json:"size"`
		Headers map[string]any `json:"headers"`
		TLS     struct {
			Version string `json:"version"`
			Verify  string `json:"client_verify"`
		} `json:"tls"`
	} `json:"request"`
	Response struct {
		Status  int            `json:"status"`
		Size    json.Number    `json:"size"`
		Headers map[string]any `json:"headers"`
	} `json:"response"`
	Latencies struct {
		Request json.Number `json:"request"` // milliseconds
	} `json:"latencies"`
	Tries          []struct{}  `json:"tries"`
	Route          kongName    `json:"route"`
	Service        kongName    `json:"service"`
	UpstreamStatus any         `json:"upstream_status"`
	ClientIP       string      `json:"client_ip"`
	StartedAt      json.Number `json:"started_at"` // milliseconds since 1970
	Consumer       struct {
		ID       string `json:"id"`
		Username string `json:"username"`
		CustomID string `json:"custom_id"`
	} `json:"consumer"`
	Credential struct {
		ID string `json:"id"`
	} `json:"authenticated_entity"`
}

type kongName struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// kongFields are those of an entry that the plugin makes itself. Whatever else
// there is, the operator has added with custom_fields_by_lua.
var kongFields = map[string]bool{
	"request": true, "response": true, "latencies": true, "tries": true, "route": true, "service": true, "upstream_status": true, "upstream_uri": true,
	"client_ip": true, "started_at": true, "consumer": true, "authenticated_entity": true, "workspace": true, "workspace_name": true, "source": true,
	"session": true, "upstream": true,
}

// kong reads an entry of Kong's http-log plugin. Headers, queries and
// upstream_uri stay out of the log: there are keys, cookies and tokens in them.
func kong(client *Client, data []byte) (mapped, error) {
	var in kongEntry
	var all map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&all); err != nil {
		return mapped{}, noEvent("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	// Lua has one kind of empty table: what is empty may be [] or {}.
	for _, name := range []string{"tries", "consumer", "authenticated_entity", "route", "service"} {
		if isEmpty(all[name]) {
			delete(all, name)
		}
	}
	for _, side := range []string{"request", "response"} {
		if m, ok := all[side].(map[string]any); ok && isEmpty(m["headers"]) {
			delete(m, "headers")
		}
	}
	tidy, err := json.Marshal(all)
	if err != nil {
		return mapped{}, noEvent("%s", err)
	}
	if err := json.Unmarshal(tidy, &in); err != nil {
		return mapped{}, noEvent("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	started, err := in.StartedAt.Float64()
	switch {
	case all["session"] != nil:
		return mapped{}, noEvent("it is of a TCP or UDP stream; only entries of HTTP requests are kept")
	case in.Request.Method == "" || in.Response.Status < 100 || in.Response.Status > 999:
		return mapped{}, noEvent("it is no entry of Kong's http-log: request.method or response.status is missing")
	case err != nil || started < 0 || started > 253402300799999: // the year 9999
		return mapped{}, noEvent("it is no entry of Kong's http-log: started_at is missing")
	}
	path, _, _ := strings.Cut(in.Request.URI, "?")
	path, _, _ = strings.Cut(path, "#")
	e := auditlog.Event{
		Time: time.UnixMilli(int64(started)), Action: strings.TrimSpace(in.Request.Method + " " + in.Route.Name), Resource: path,
		Actor:    auditlog.Actor{User: cmp.Or(in.Consumer.Username, in.Consumer.CustomID, in.Consumer.ID), Client: in.ClientIP},
		Category: categoryOf(&http.Request{Method: in.Request.Method}), Attributes: map[string]string{"status": strconv.Itoa(in.Response.Status)},
	}
	e.Outcome, e.Severity = outcomeOf(in.Response.Status)
	for _, id := range []any{in.Request.ID, in.Response.Headers["x-kong-request-id"], in.Request.Headers["x-request-id"]} {
		if text, ok := id.(string); ok && isID(text) {
			e.RequestID = text
			break
		}
	}
	for name, value := range map[string]string{
		"route": cmp.Or(in.Route.Name, in.Route.ID), "upstream": cmp.Or(in.Service.Name, in.Service.ID), "took_ms": in.Latencies.Request.String(),
		"request_bytes": in.Request.Size.String(), "response_bytes": in.Response.Size.String(), "tls": in.Request.TLS.Version, "client_verify": in.Request.TLS.Verify,
		"credential": in.Credential.ID,
	} {
		if value != "" {
			e.Attributes[name] = value
		}
	}
	if len(in.Tries) > 1 {
		e.Attributes["tries"] = strconv.Itoa(len(in.Tries))
	}
	if err := flatten(e.Attributes, "upstream_status", in.UpstreamStatus); err != nil {
		return mapped{}, err
	}
	for name, value := range all {
		if kongFields[name] {
			continue
		}
		if user, ok := value.(string); ok && name == client.KongUser && e.Actor.User == "" {
			e.Actor.User = user
			continue
		}
		if err := flatten(e.Attributes, "custom."+name, value); err != nil {
			return mapped{}, err
		}
	}
	return mapped{e, "", true}, nil
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
