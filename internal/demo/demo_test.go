package demo_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tamshai/phoenix/internal/agent"
	"github.com/tamshai/phoenix/internal/demo"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/secrets"
)

// TestMain lets the test binary be the agent, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "exec" {
		os.Exit(agent.Main(os.Args, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestDemo(t *testing.T) {
	for name, real := range map[string]bool{"on the double": false, "on real Vault": true} {
		t.Run(name, func(t *testing.T) {
			defer leak.None(t, goleak.IgnoreCurrent())
			var out bytes.Buffer
			if err := demo.Run(t.Context(), demo.Config{Out: &out, Real: real, Agent: []string{os.Args[0]}}); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range []string{
				"0 writes", "destroyed and proven", "the SecretID is spent", "security event", "tampered with", "sees version 2", "in the same process", "is back, from memory", "the agent with its code: 0", "From an empty Vault",
				" certificates, 0 failed", "of the same authority: refused", "that <US_SSN", "Yes, 219-09-9999 is on file.", "Jan, <US_SSN", "the stream is stopped", "guard.answer blocked prompt=1", "with its resumable session",
				"anchored elsewhere: sound", "verify       edited at record 102, event 01", "verify       truncated at record 102, after event 01",
				"0 failed, and as many rows", "6 users were made, 1 is left", "0 failed, ", " rows by 3 users; certificates: ",
			} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output does not say %q:\n%s", want, out.String())
				}
			}
			if n := strings.Count(out.String(), "ready\n"); n != 6 {
				t.Errorf("%d services came up, want three twice", n)
			}
			// Every line is scrubbed of the values; none should have needed it.
			if strings.Contains(out.String(), secrets.Redacted) {
				t.Errorf("a value had to be taken out:\n%s", out.String())
			}
			if strings.Contains(out.String(), "\x1b") {
				t.Error("colour without being asked")
			}
		})
	}
}
