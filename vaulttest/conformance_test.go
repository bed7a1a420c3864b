package vaulttest_test

import (
	"testing"
	"time"

	"github.com/tamshai/phoenix/vaulttest"
	"github.com/tamshai/phoenix/vaulttest/conformance"
)

// TestConformance holds the double to what real Vault answers. The same cases
// run against real Vault in package conformance.
func TestConformance(t *testing.T) {
	for name, cfg := range map[string]vaulttest.Config{
		"plain":         {},
		"TLS":           {TLS: true},
		"in memory":     {InMemory: true},
		"in memory TLS": {InMemory: true, TLS: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range conformance.Cases {
				t.Run(c.Name, func(t *testing.T) {
					t.Parallel()
					cfg := cfg
					if c.DoubleOnly {
						// Its clock stands still between turns: a second that
						// passes under load would be a second less of a TTL.
						begin := time.Now()
						cfg.Now = func() time.Time { return begin }
					}
					c.Run(t, target(t, cfg))
				})
			}
		})
	}
}

// target gives a case a server of its own.
func target(t *testing.T, cfg vaulttest.Config) conformance.Target {
	v := start(t, cfg)
	return conformance.Target{
		Addr:      v.Addr(),
		RootToken: v.RootToken(),
		Client:    v.Client(),
		Advance:   v.Advance,
		UnsealKey: v.UnsealKey(),
		Lease: func(path string, ttl, max time.Duration) {
			v.HandleLease(path, vaulttest.LeaseHandler{Create: func() (vaulttest.Credential, error) {
				return vaulttest.Credential{Data: map[string]any{"token": "t"}, TTL: ttl, MaxTTL: max}, nil
			}})
		},
	}
}

// start starts a server that the test's end closes.
func start(t *testing.T, cfg vaulttest.Config) *vaulttest.Server {
	t.Helper()
	v, err := vaulttest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}
