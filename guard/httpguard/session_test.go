package httpguard_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/httpguard"
)

// The provider gets a name for the session that tells nothing and is the same
// in each turn.
func TestUserID(t *testing.T) {
	m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
	gateway := newGateway(t, nil).RoundTripper(m)
	id := func(session string) string {
		post(t, gateway, "/v1/messages", session, `{"messages":[]}`)
		var v struct {
			Metadata struct {
				UserID string `json:"user_id"`
			}
		}
		if err := json.Unmarshal([]byte(m.last()), &v); err != nil {
			t.Fatal(err)
		}
		return v.Metadata.UserID
	}
	a, again, b := id("anna"), id("anna"), id("ben")
	if len(a) != 32 || a != again || a == b || id("") == id("") || strings.Contains(a, "anna") {
		t.Errorf("%q, %q, %q", a, again, b)
	}
}

// A program that names no session sends the whole conversation each time, and what left
// before leaves as it did: the provider's cache and its signatures depend on it. Nothing
// is kept for it, and another's beginning or credential has other pseudonyms.
func TestNoSession(t *testing.T) {
	for path, forms := range map[string][2]string{
		"/v1/messages":              {`{"messages":[{"role":"user","content":[{"type":"text","text":"FIRST","cache_control":{"type":"ephemeral"}}]}`, `{"messages":[{"role":"user","content":"FIRST"}`},
		"/v1/chat/completions":      {`{"messages":[{"role":"system","content":"It is noon."},{"role":"user","content":"FIRST"}`, `{"messages":[{"role":"system","content":"It is night."},{"role":"user","content":"FIRST"}`},
		"/v1/responses":             {`{"input":[{"role":"user","content":"FIRST"}`, `{"input":[{"role":"user","content":"FIRST"}`},
		"/v1beta/g:generateContent": {`{"contents":[{"role":"user","parts":[{"text":"FIRST"}]}`, `{"contents":[{"role":"user","parts":[{"text":"FIRST"}]}`},
	} {
		m := &model{answer: func(map[string]any) (string, string) { return "application/json", `{}` }}
		gateway := newGateway(t, func(c *httpguard.Config) { c.Delimiters = guard.NewDelimiters(guard.DelimiterConfig{}) }).RoundTripper(m)
		sent := func(form, first, key string) (name, delimiter, answer string) {
			status, answer := post(t, gateway, path, "", strings.Replace(form, "FIRST", first, 1)+"]}", "X-Api-Key", key)
			if status != 200 {
				t.Fatal(status, answer)
			}
			_, delimiter, _ = strings.Cut(m.last(), "</data-")
			return pseudonym(m.last()), delimiter[:26], answer
		}
		name, delimiter, _ := sent(forms[0], "SSN "+ssn, "k")
		if again, same, _ := sent(forms[1]+`,{"role":"assistant","content":"Hm.","parts":[]},{"role":"user","content":"And?","parts":[]}`, "SSN "+ssn, "k"); again != name || same != delimiter || name == "none" {
			t.Errorf("%s: %s and %s became %s and %s", path, name, delimiter, again, same)
		}
		for _, other := range [][2]string{{"My SSN " + ssn, "k"}, {"SSN " + ssn, "j"}} {
			if another, same, _ := sent(forms[0], other[0], other[1]); another == name || same == delimiter {
				t.Errorf("%s: %q has the pseudonym or the delimiter of another", path, other)
			}
		}
		name, _, _ = sent(forms[0]+`,{"role":"user","content":"SSN `+ssn+`","parts":[{"text":"SSN `+ssn+`"}]}`, "Hello", "k")
		m.answer = func(map[string]any) (string, string) { return "application/json", `{"text":"` + name + `"}` }
		if _, _, answer := sent(forms[0], "Hello", "k"); strings.Contains(answer, ssn) || name == "none" {
			t.Errorf("%s: another request's value came back: %s", path, answer)
		}
	}
}

// Sessions are forgotten after their TTL, and when there are too many.
func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{}
		echo := func(map[string]any) (string, string) {
			return "application/json", `{"content":[{"text":"` + pseudonym(m.got[0]) + `"}]}`
		}
		m.answer = echo
		gateway := newGateway(t, func(c *httpguard.Config) { c.SessionTTL, c.MaxSessions = time.Minute, 2 }).RoundTripper(m)
		ask := func(session, text string) bool {
			_, answer := post(t, gateway, "/v1/messages", session, `{"messages":[{"content":`+quoted(text)+`}]}`)
			return strings.Contains(answer, ssn)
		}
		if !ask("s", "SSN "+ssn) || !ask("s", "next") {
			t.Error("the value did not come back")
		}
		time.Sleep(time.Minute)
		if ask("s", "later") {
			t.Error("the session outlived its TTL")
		}
		if !ask("s", "SSN "+ssn) {
			t.Error("the pseudonym changed")
		}
		ask("a", "x")
		ask("b", "x")
		if ask("s", "x") {
			t.Error("three sessions are kept")
		}
	})
}
