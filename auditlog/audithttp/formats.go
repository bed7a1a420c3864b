package audithttp

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tamshai/phoenix/auditlog"
)

func noEvent(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{auditlog.ErrEvent}, args...)...)
}

// strict refuses JSON that two readers could understand differently, or that
// is nested without end.
func strict(data []byte) error {
	if !utf8.Valid(data) {
		return noEvent("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := strictValue(dec, 0, true); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return noEvent("the JSON is cut off")
		}
		if errors.Is(err, auditlog.ErrEvent) {
			return err
		}
		return noEvent("%s", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return noEvent("there is more after it")
	}
	return nil
}

// strictValue reads one value. With fold, names that differ in case alone are
// the same, as they are to encoding/json.
func strictValue(dec *json.Decoder, depth int, fold bool) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == 32 {
		return noEvent("it is nested too deeply")
	}
	seen := map[string]bool{}
	for dec.More() {
		below := false
		if delim == '{' {
			token, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string)
			below = fold && strings.EqualFold(name, "actor")
			key := name
			if fold {
				key = strings.ToLower(name)
			}
			if seen[key] {
				return noEvent("it has the name %.40q twice", name)
			}
			seen[key] = true
		}
		if err := strictValue(dec, depth+1, below); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// idOf is a UUIDv7 (RFC 9562) that is the same for the same data.
func idOf(at time.Time, service string, index int, data []byte) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %q %d\n", at.UnixNano(), service, index)
	sum.Write(data)
	u := sum.Sum(nil)[:16]
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(at.UnixMilli(), 0)))
	copy(u[:6], ms[2:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	text := hex.EncodeToString(u)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// native reads our own form.
func native(_ *Client, data []byte) (mapped, error) {
	e, err := auditlog.ParseEvent(data)
	return mapped{e, e.ID, e.ID != "" && !e.Time.IsZero()}, err
}

var gatewaySeverities = map[string]auditlog.Severity{
	"emergency": auditlog.Emergency, "alert": auditlog.Alert, "critical": auditlog.Critical, "error": auditlog.Error,
	"warning": auditlog.Warning, "notice": auditlog.Notice, "info": auditlog.Informational, "debug": auditlog.Debug,
}

// gateway reads what the deployment's AI gateway posts to its audit endpoint.
func gateway(_ *Client, data []byte) (mapped, error) {
	var in struct {
		Timestamp   time.Time         `json:"timestamp"`
		EventID     string            `json:"eventId"`
		Severity    string            `json:"severity"`
		Category    auditlog.Category `json:"category"`
		Message     string            `json:"message"`
		UserID      string            `json:"userId"`
		Username    string            `json:"username"`
		Roles       []string          `json:"roles"`
		ClientIP    string            `json:"clientIp"`
		RequestID   string            `json:"requestId"`
		Resource    string            `json:"resource"`
		Action      string            `json:"action"`
		Outcome     auditlog.Outcome  `json:"outcome"`
		Metadata    map[string]any    `json:"metadata"`
		Service     string            `json:"service"`
		Environment string            `json:"environment"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return mapped{}, noEvent("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	severity, ok := gatewaySeverities[in.Severity]
	switch {
	case !ok:
		return mapped{}, noEvent("the severity %.40q is none of emergency, alert, critical, error, warning, notice, info, debug", in.Severity)
	case in.Timestamp.IsZero():
		return mapped{}, noEvent("it has no timestamp")
	case in.Category == "" || in.Outcome == "":
		return mapped{}, noEvent("it has no category or no outcome")
	}
	e := auditlog.Event{
		Time: in.Timestamp, Service: in.Service, Environment: in.Environment, Severity: severity, Category: in.Category,
		Action: cmp.Or(in.Action, string(in.Category)), Resource: in.Resource, RequestID: in.RequestID, Outcome: in.Outcome,
		Actor: auditlog.Actor{User: cmp.Or(in.UserID, in.Username), Client: in.ClientIP}, Attributes: map[string]string{},
	}
	for name, value := range map[string]string{"message": in.Message, "username": in.Username, "roles": strings.Join(in.Roles, ",")} {
		if value != "" {
			e.Attributes[name] = value
		}
	}
	err := flatten(e.Attributes, "metadata", in.Metadata)
	return mapped{e, in.EventID, in.EventID != ""}, err
}

// maxAttributes bounds what one event can be made of.
const maxAttributes = 128

// flatten writes a JSON value to attributes, with dots in their names.
func flatten(out map[string]string, name string, value any) error {
	if len(out) > maxAttributes {
		return noEvent("it has more than %d attributes", maxAttributes)
	}
	switch v := value.(type) {
	case nil:
	case string:
		out[name] = v
	case bool:
		out[name] = strconv.FormatBool(v)
	case json.Number:
		out[name] = v.String()
	case []any:
		for i, one := range v {
			if err := flatten(out, name+"."+strconv.Itoa(i), one); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, one := range v {
			if err := flatten(out, name+"."+key, one); err != nil {
				return err
			}
		}
	}
	return nil
}
