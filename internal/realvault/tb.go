package realvault

import (
	"context"
	"strings"
)

// TB is the part of testing.TB that [StartT] uses.
type TB interface {
	Helper()
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// StartT starts a server for a test and closes it when the test ends. A server
// that cannot start fails the test: it is never skipped. When the test has
// failed, the end of Vault's log is added to its output.
func StartT(t TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("real Vault: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of Vault's log:\n%s", lastLines(s.Log(), 30))
		}
		if err := s.Close(); err != nil {
			t.Logf("real Vault: close: %v", err)
		}
	})
	return s
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
