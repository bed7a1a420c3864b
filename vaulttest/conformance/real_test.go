package conformance_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crypto/rand"

	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/vaulttest/conformance"
)

var update = flag.Bool("update", false, "record the transcripts in testdata from real Vault")

// TestRealVault runs the cases against real Vault: the transcripts that the
// double is held to are what this Vault says.
func TestRealVault(t *testing.T) {
	v := realvault.StartT(t, realvault.Config{})
	consul := httptest.NewServer(http.HandlerFunc(consulTokens))
	t.Cleanup(consul.Close)

	client := *v.HTTPClient()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	target := conformance.Target{
		Addr: v.Addr(), RootToken: v.RootToken(), Client: &client,
		Consul:   strings.TrimPrefix(consul.URL, "http://"),
		Database: databaseUsers(t),
	}
	if *update {
		target.Record = func(name, transcript string) {
			if err := os.WriteFile(filepath.Join("testdata", conformance.FileName(name)), []byte(transcript), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("cases", func(t *testing.T) {
		for _, c := range conformance.Cases {
			t.Run(c.Name, func(t *testing.T) {
				if c.DoubleOnly {
					t.Skip("turns the clock")
				}
				t.Parallel()
				if !c.Alone {
					c.Run(t, target)
					return
				}
				v := realvault.StartT(t, realvault.Config{})
				own := target
				own.Addr, own.RootToken, own.UnsealKey = v.Addr(), v.RootToken(), v.UnsealKeys()[0]
				c.Run(t, own)
			})
		}
	})
}

// databaseUsers makes users on a PostgreSQL that all cases share.
func databaseUsers(t *testing.T) func(*testing.T, string, string) (string, string) {
	pg := realpg.Start(t, realpg.Config{})
	return func(t *testing.T, user, fixed string) (url, password string) {
		const first = "the-first-password"
		pg.Exec(t, "postgres", fmt.Sprintf(`CREATE ROLE %q LOGIN CREATEROLE PASSWORD '%s'; CREATE ROLE %q LOGIN`, user, first, fixed))
		return fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/postgres?sslmode=verify-full&sslrootcert=%s", pg.Addr(), pg.CAFile()), first
	}
}

// consulTokens is as much of a Consul as Vault needs for giving out its tokens.
func consulTokens(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		_, _ = w.Write([]byte("true"))
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"AccessorID": rand.Text(), "SecretID": rand.Text(), "Policies": []any{}})
}
