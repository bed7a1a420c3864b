package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// compare checks the whole transcript against the one in testdata, or records it.
func (s *script) compare(name string) {
	s.Helper()
	if s.Failed() {
		return
	}
	got := s.transcript()
	if s.Record != nil {
		s.Record(name, got)
		return
	}
	want, err := testdata.ReadFile("testdata/" + FileName(name))
	if err != nil {
		s.Fatalf("no transcript of real Vault: %v", err)
	}
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if g, w := line(gotLines, i), line(wantLines, i); g != w {
			g, w = difference(g, w)
			s.Errorf("transcript, line %d (after %q)\n got %s\nwant %s", i+1, line(gotLines, i-1), g, w)
		}
	}
}

// difference cuts two lines down to the neighbourhood of where they differ.
func difference(a, b string) (string, string) {
	from := 0
	for from < min(len(a), len(b)) && a[from] == b[from] {
		from++
	}
	from = max(0, from-60)
	cut := func(s string) string { return s[from:min(len(s), from+240)] }
	return cut(a), cut(b)
}

func line(lines []string, i int) string {
	if i < 0 || i >= len(lines) {
		return "(nothing)"
	}
	return lines[i]
}

// FileName returns the name of a case's transcript in testdata.
func FileName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '/' {
			return '-'
		}
		return r
	}, strings.ReplaceAll(name, ",", "")) + ".txt"
}

// transcript writes all steps, two lines and a blank each.
func (s *script) transcript() string {
	var b strings.Builder
	for _, r := range s.steps {
		fmt.Fprintf(&b, "%s\n%d %s\n\n", r.request, r.code, r.normal())
	}
	return b.String()
}

// normal is the body with the same text for the same behaviour.
func (r *reply) normal() string {
	switch {
	case r.elided:
		return "..."
	case r.body == nil:
		return r.unexpand(strings.TrimSpace(describeRaw(r.raw)))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(normalize("", r.body)); err != nil {
		r.Fatalf("%s: %v", r.request, err)
	}
	text := timestamp.ReplaceAllString(r.unexpand(strings.TrimSpace(b.String())), "TIME")
	text = uuid.ReplaceAllString(serial.ReplaceAllString(text, "SERIAL"), "UUID")
	return missingClaim.ReplaceAllString(text, `claim \"/job/ref\" is missing`)
}

// unexpand puts the names of variables back in place of their values.
func (s *script) unexpand(text string) string {
	type pair struct{ name, value string }
	var pairs []pair
	for name, value := range s.vars {
		if len(value) > 3 {
			pairs = append(pairs, pair{name, value})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if len(a.value) != len(b.value) {
			return len(b.value) - len(a.value)
		}
		return strings.Compare(a.name, b.name)
	})
	for _, p := range pairs {
		text = strings.ReplaceAll(text, p.value, "$"+p.name)
	}
	return text
}

var timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// missingClaim is one of several claims that are missing: Vault looks at them in
// the random order of a map, and names the first.
var missingClaim = regexp.MustCompile(`claim \\"/job/(ref|run)\\" is missing`)

// random are the fields whose values differ from run to run.
var random = map[string]bool{
	"request_id": true, "client_token": true, "accessor": true, "wrapped_accessor": true, "token": true,
	"secret_id": true, "secret_id_accessor": true, "role_id": true, "entity_id": true, "client_id": true,
	"uuid": true, "id": true, "lease_id": true, "creation_time": true, "last_renewal_time": true,
	"cluster_id": true, "cluster_name": true, "server_time_utc": true, "build_date": true,
	"signature": true, "hmac": true, "ciphertext": true, "public_key": true, "running_plugin_version": true,
	"storage_type": true, "echo_duration_ms": true, "clock_skew_ms": true,
}

// normalize replaces what is random by the field's name, and rounds what ticks.
func normalize(field string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if list, ok := unordered(v); ok {
			return list
		}
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = normalize(k, e)
		}
		return out
	case []any:
		out, names := make([]any, len(v)), make([]string, len(v))
		for i, e := range v {
			out[i] = normalize("", e)
			names[i], _ = e.(string)
		}
		if len(names) > 1 && namedByChance(names) {
			for i := range out {
				out[i] = "ID"
			}
		}
		return out
	case json.Number:
		if random[field] {
			return strings.ToUpper(field)
		}
		if i, err := v.Int64(); err == nil && i > 1_500_000_000 && i < 4_000_000_000 {
			return "UNIX"
		}
		if field == "ttl" || field == "lease_duration" {
			return roundUp(v)
		}
	case string:
		if random[field] && v != "" {
			return strings.ToUpper(field)
		}
		v = describePEM(v)
		return quotedDuration.ReplaceAllStringFunc(v, roundUpText)
	}
	return v
}

// quotedDuration is a duration in a warning.
var quotedDuration = regexp.MustCompile(`"[0-9hms]+"`)

func roundUpText(quoted string) string {
	d, err := time.ParseDuration(strings.Trim(quoted, `"`))
	if err != nil {
		return quoted
	}
	return `"` + (d + 7*time.Second).Truncate(10*time.Second).String() + `"`
}

// roundUp forgives the seconds that went by since a TTL began, up to seven.
func roundUp(n json.Number) json.Number {
	if i, err := n.Int64(); err == nil && i%10 >= 3 {
		return json.Number(fmt.Sprint(i + 10 - i%10))
	}
	return n
}
