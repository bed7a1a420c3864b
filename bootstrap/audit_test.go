package bootstrap_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// onDisk is every byte of every file below dir.
func onDisk(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever an application puts into an event, the log holds no value that the
// session knows: not the first, not the newest, in no field and no spelling.
func TestTheLogHoldsNoSecretOfTheSession(t *testing.T) {
	leakCheck(t)
	v := vaulttest.New(t)
	const old, next = "the-old \"value\"/+", "the-new \"value\"/+"
	v.PutKV("kv/app", map[string]any{"key": old})
	roleID, secretID := v.AppRole("mcp-hr")
	dir := t.TempDir()
	log, err := auditlog.Open(dir, auditlog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID), Secrets: []string{"kv/app#key"}, Audit: log, Poll: -1,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
	s, err := bootstrap.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	everywhere := func(value string) {
		t.Helper()
		e := auditlog.Event{
			Action: "call " + value, Resource: "r/" + value, RequestID: value, Service: value, Environment: value,
			Actor: auditlog.Actor{User: value, Peer: value, Client: value},
			Attributes: map[string]string{value: value, "hex": hex.EncodeToString([]byte(value)), "base64": base64.StdEncoding.EncodeToString([]byte("user:" + value)),
				"said": `upstream answered {"key":"` + strings.ReplaceAll(value, `"`, `\"`) + `"}`, "kept": "plain"},
		}
		if err := log.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	everywhere(old)
	v.PutKV("kv/app", map[string]any{"key": next})
	if err := s.Secrets().Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	everywhere(next)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	everywhere(next) // what a service says on its way out
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := onDisk(t, dir)
	if n := bytes.Count(disk, []byte(`"kept":"plain"`)); n != 3 {
		t.Errorf("%d events are kept", n)
	}
	for _, part := range []string{"the-old", "the-new", hex.EncodeToString([]byte("the-old")), hex.EncodeToString([]byte("the-new")), secretID,
		base64.StdEncoding.EncodeToString([]byte("user:" + old))[8:20], base64.StdEncoding.EncodeToString([]byte("user:" + next))[8:20]} {
		if bytes.Contains(disk, []byte(part)) {
			t.Errorf("%q is on the disk", part)
		}
	}
	for _, value := range v.SecretValues() {
		if bytes.Contains(disk, []byte(value)) {
			t.Errorf("a value that Vault has given out is on the disk: %.4s…", value)
		}
	}
}

// A log that outlives a start that failed does not keep its scrubber.
func TestAFailedStartLeavesTheLogAsItWas(t *testing.T) {
	leakCheck(t)
	v := vaulttest.New(t)
	roleID, _ := v.AppRole("mcp-hr")
	log := &countingLog{}
	_, err := bootstrap.Start(t.Context(), bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString("11111111-1111-1111-1111-111111111111"), Audit: log, Spent: bootstrap.FailWhenSpent,
		LookupEnv: func(string) (string, bool) { return "", false },
	})
	if err == nil || log.added != 1 || log.removed != 1 {
		t.Errorf("%d added, %d removed: %v", log.added, log.removed, err)
	}
}

type countingLog struct {
	recorder
	added, removed int
}

func (l *countingLog) AddScrub(func(string) string) func() {
	l.added++
	return func() { l.removed++ }
}
