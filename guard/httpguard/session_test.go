package httpguard_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
