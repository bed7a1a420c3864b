package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tamshai/phoenix/internal/agent"
	"github.com/tamshai/phoenix/internal/leak"
)

// TestMain lets the test's binary be the agent, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "exec" {
		os.Exit(agent.Main(os.Args, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestShow(t *testing.T) {
	defer leak.None(t, goleak.IgnoreCurrent())
	var out bytes.Buffer
	if err := show(t.Context(), &out, os.Args[0], false); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		`200 {"hr":{"caller":"mcp-gateway","user":"ada"`, `201 {"id":"1","name":"Grace"`, `403 {"error":"tom may not hire"}`,
		"400 Client sent an HTTP request to an HTTPS server", "refused: certificate required", "refused: bad certificate", "the user that the caller names is not proven",
		"PGUSER=mcp-hr", " 0 failed; ", "written by 3 users",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "PGPASSWORD") {
		t.Errorf("a password:\n%s", out.String())
	}
}
