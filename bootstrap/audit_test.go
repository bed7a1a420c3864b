package bootstrap_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// A life of a session with a lease, through the end of its token and a
// hand-over to its close, is in the log, with what each step was about.
func TestWhatASessionRecords(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.role(obj{"token_explicit_max_ttl": "3h"})
		log := openLog(t, auditlog.Config{})
		cfg := d.leased(d.withFile(d.wrapped()))
		cfg.Audit = log
		s := d.start(cfg)
		time.Sleep(185 * time.Minute)
		synctest.Wait()
		d.drop(cfg.SecretIDFile, d.wrapped())
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if err := errors.Join(s.Ready(), s.Close(t.Context()), log.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		seen := map[string]auditlog.Event{}
		for entry, err := range auditlog.Read(os.DirFS(log.Dir()), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if e, err := entry.Event(); entry.Kind == auditlog.KindEvent && err == nil {
				seen[e.Action] = e
			}
		}
		for action, want := range map[string]auditlog.Event{
			"bootstrap.login":                 {Category: auditlog.Authentication, Outcome: auditlog.Success, Resource: "auth/approle/role/" + d.name},
			"bootstrap.secret_id.proven_gone": {Category: auditlog.Security, Outcome: auditlog.Success, Resource: "auth/approle/role/" + d.name},
			"bootstrap.secrets.loaded":        {Category: auditlog.DataAccess, Outcome: auditlog.Success, Resource: "auth/approle/role/" + d.name},
			"bootstrap.ready":                 {Category: auditlog.System, Outcome: auditlog.Success, Resource: "auth/approle/role/" + d.name},
			"session.lease.published":         {Category: auditlog.DataAccess, Outcome: auditlog.Success, Resource: "database/creds/" + d.name},
			"session.lease.returned":          {Category: auditlog.DataAccess, Outcome: auditlog.Success, Resource: "database/creds/" + d.name},
			"session.token.ending":            {Category: auditlog.Authentication, Outcome: auditlog.Pending, Resource: "auth/approle/role/" + d.name, Severity: auditlog.Warning},
			"session.token.lost":              {Category: auditlog.Security, Outcome: auditlog.Failure, Resource: "auth/approle/role/" + d.name, Severity: auditlog.Error},
			"session.handover":                {Category: auditlog.Authentication, Outcome: auditlog.Success, Resource: "auth/approle/role/" + d.name},
			"session.closed":                  {Category: auditlog.Authentication, Outcome: auditlog.Success, Resource: "auth/approle/role/" + d.name},
		} {
			got, ok := seen[action]
			if !ok || got.Category != want.Category || got.Outcome != want.Outcome || got.Resource != want.Resource || got.Service != d.name || got.Environment != "test" ||
				want.Severity != 0 && got.Severity != want.Severity {
				t.Errorf("%s: %+v", action, got)
			}
		}
		if lease := seen["session.lease.published"].Attributes; lease["lease_id"] == "" || lease["expires"] == "" {
			t.Errorf("the lease: %v", lease)
		}
	})
}

// A start that fails says in the log what it failed at, and why.
func TestWhatAFailedStartRecords(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		cfg := d.with(d.config(d.wrapped()))
		cfg.Secrets = []string{"elsewhere/app#password"}
		d.fails(cfg, bootstrap.ErrDenied)
		if all := d.events.all("bootstrap.load"); len(all) != 1 || all[0].Category != auditlog.Authorization || all[0].Outcome != auditlog.Failure ||
			!strings.Contains(all[0].Attributes["reason"], "elsewhere") {
			t.Errorf("%+v", all)
		}
		cfg = d.with(d.config(d.wrapped()))
		d.server.Seal()
		if _, err := bootstrap.Start(t.Context(), cfg); !errors.Is(err, bootstrap.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		d.server.Unseal()
		if all := d.events.all("bootstrap.reach_vault"); len(all) != 1 || all[0].Category != auditlog.System || all[0].Outcome != auditlog.Failure || all[0].Resource != d.addr {
			t.Errorf("%+v", all)
		}
	})
}
