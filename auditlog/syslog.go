package auditlog

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Syslog is how events are rendered for syslog. Its zero value works.
type Syslog struct {
	Facility int    // RFC 5424, table 1; 0: 13, log audit. (Facility 0 is the kernel's.)
	Host     string // HOSTNAME; empty: "-"
	ProcID   string // PROCID; empty: "-"
	Extra    string // more structured data, as it is to stand there, such as a vendor's token
}

// enterprise makes the structured data's name: 32473 is the number that RFC
// 5612 sets aside for documentation, as we have none of our own.
const enterprise = "audit@32473"

// AppendSyslog appends the event to dst as a message of RFC 5424, without
// framing, and returns the extended slice. The fields are structured data, and
// the message is the event in JSON, with a byte order mark before it as section
// 6.4 wants for UTF-8. Nothing in a value can end the message or forge a field.
func (e *Event) AppendSyslog(dst []byte, s Syslog) []byte {
	dst = append(dst, '<')
	dst = strconv.AppendInt(dst, int64(cmp.Or(s.Facility, 13)*8+e.Severity.Code()), 10)
	dst = append(dst, ">1 "...)
	dst = e.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z") // at most six digits
	dst = appendHeader(dst, s.Host, 255)
	dst = appendHeader(dst, e.Service, 48)
	dst = appendHeader(dst, s.ProcID, 128)
	dst = appendHeader(dst, e.Action, 32)
	dst = append(dst, ' ', '[')
	dst = append(dst, enterprise...)
	dst = appendParam(dst, "id", e.ID)
	dst = appendParam(dst, "environment", e.Environment)
	dst = appendParam(dst, "category", string(e.Category))
	dst = appendParam(dst, "action", e.Action)
	dst = appendParam(dst, "resource", e.Resource)
	dst = appendParam(dst, "user", e.Actor.User)
	dst = appendParam(dst, "peer", e.Actor.Peer)
	dst = appendParam(dst, "client", e.Actor.Client)
	dst = appendParam(dst, "request_id", e.RequestID)
	dst = appendParam(dst, "outcome", string(e.Outcome))
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		dst = appendParam(dst, "a."+name, e.Attributes[name])
	}
	dst = append(dst, ']')
	dst = append(dst, s.Extra...)
	dst = append(dst, " \xef\xbb\xbf"...)
	return e.AppendJSON(dst)
}

// appendHeader appends a header field: printable ASCII without spaces, at most
// so long, or "-".
func appendHeader(dst []byte, value string, most int) []byte {
	dst = append(dst, ' ')
	if value == "" {
		return append(dst, '-')
	}
	for i := range min(len(value), most) {
		c := value[i]
		if c <= ' ' || c >= 0x7f {
			c = '_'
		}
		dst = append(dst, c)
	}
	return dst
}

// appendParam appends a field of the structured data: RFC 5424, section 6.3.3.
func appendParam(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, ' ')
	for i := range min(len(name), 32) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || c == '=' || c == ']' || c == '"' {
			c = '_'
		}
		dst = append(dst, c)
	}
	dst = append(dst, '=', '"')
	for _, r := range value {
		switch {
		case r == '"' || r == '\\' || r == ']':
			dst = append(dst, '\\', byte(r))
		case r < ' ' || r == 0x7f || unsafeRune(r):
			dst = append(dst, ' ') // the JSON has it in full
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
