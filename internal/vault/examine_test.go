package vault_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
)

func TestCapabilities(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/capabilities-self" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"data":{"a":["read","list"],"b":["deny"],"capabilities":["deny"]}}`)
	})
	may, err := c.Capabilities(t.Context(), "a", "b", "c")
	if err != nil || len(may) != 3 || !slices.Equal(may["a"], []string{"read", "list"}) || !slices.Equal(may["b"], []string{"deny"}) || may["c"] != nil {
		t.Errorf("%v, %v", may, err)
	}
}

// A record tells everything of a token but the token.
func TestTokenRecords(t *testing.T) {
	answer := `{"data":{"id":"hvs.the-token-itself","accessor":"acc","display_name":"approle","type":"service","policies":["default","web"],
		"ttl":3600,"expire_time":"2026-11-01T12:00:00Z","period":3600,"explicit_max_ttl":86400,"num_uses":2,"renewable":true,"bound_cidrs":["10.0.0.0/8"]}}`
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) })
	r, err := c.RecordSelf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Accessor != "acc" || r.Type != "service" || !slices.Equal(r.Policies, []string{"default", "web"}) || r.TTL != time.Hour || r.Endless ||
		r.Period != time.Hour || r.ExplicitMaxTTL != 24*time.Hour || r.Uses != 2 || !r.Renewable || !slices.Equal(r.BoundCIDRs, []string{"10.0.0.0/8"}) {
		t.Errorf("%+v", r)
	}
	if text := fmt.Sprintf("%+v %#v", r, *r); strings.Contains(text, "hvs.") {
		t.Errorf("the token shows: %s", text)
	}
	answer = `{"data":{"accessor":"root","policies":["root"],"ttl":0,"expire_time":null}}`
	if r, err = c.RecordOf(t.Context(), "root"); err != nil || !r.Endless || r.TTL != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTokenRecordsThatAreNone(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if _, err := c.RecordSelf(t.Context()); !errors.Is(err, vault.ErrServer) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Capabilities(t.Context(), "a"); !errors.Is(err, vault.ErrServer) {
		t.Errorf("got %v", err)
	}
}
