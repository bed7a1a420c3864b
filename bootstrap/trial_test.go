package bootstrap_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/bootstrap"
)

// A trial goes the way of a start, and leaves nothing behind.
func TestTrial(t *testing.T) {
	v := onReal(t)
	cfg := v.withFile(v.wrapped())

	// To look for the SecretID does not spend it.
	for range 2 {
		found, err := bootstrap.Find(cfg)
		if err != nil || found.From != cfg.SecretIDFile || found.RoleID != v.roleID() || found.SecretID.IsZero() {
			t.Fatalf("%v, %v", found, err)
		}
		collected.add(fmt.Sprintf("%v %+v %#v", found, found, found))
	}
	trial, err := bootstrap.Try(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if boot := trial.Boot(); !boot.Wrapped || boot.Proof != bootstrap.ProvenGone || boot.Secrets != 0 {
		t.Errorf("%+v", boot)
	}
	if r, err := trial.Client().RecordSelf(t.Context()); err != nil || r.Accessor != trial.Boot().Accessor || r.Type != "service" {
		t.Errorf("%+v, %v", r, err)
	}
	text, _ := json.Marshal(trial)
	shown := fmt.Sprintf("%v %+v %#v %s %s", trial, trial, trial, trial, text)
	collected.add(shown)
	if !strings.Contains(shown, "trial login of "+v.name) || strings.Contains(shown, "hvs.") {
		t.Errorf("it shows as %s", shown)
	}
	if _, err := os.Stat(cfg.SecretIDFile); !os.IsNotExist(err) {
		t.Errorf("the spent SecretID's file is still there: %v", err)
	}
	if err := trial.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if left := v.tokens(); len(left) > 0 {
		t.Errorf("tokens left: %v", left)
	}
	v.events.await(t, "session.token.revoked", 1)

	if _, err := bootstrap.Try(t.Context(), cfg); !errors.Is(err, bootstrap.ErrNoSecretID) {
		t.Errorf("a second time: %v", err)
	}
	if found, err := bootstrap.Find(cfg); !errors.Is(err, bootstrap.ErrNoSecretID) || found.RoleID != v.roleID() || found.From != cfg.SecretIDFile {
		t.Errorf("%v, %v", found, err)
	}
}

// What cannot be recorded does not happen, in a trial too.
func TestTrialThatCannotBeRecorded(t *testing.T) {
	v := onReal(t)
	v.events.fail = "bootstrap.secret_id.destroyed"
	if _, err := bootstrap.Try(t.Context(), v.withFile(v.wrapped())); err == nil || !strings.Contains(err.Error(), "mend the audit log") {
		t.Errorf("got %v", err)
	}
	if left := v.tokens(); len(left) > 0 {
		t.Errorf("tokens left: %v", left)
	}
}

// A role that may not prove is no failure of a trial: it is to be found.
func TestTrialWithoutProof(t *testing.T) {
	v := onReal(t)
	role := "auth/approle/role/" + v.name + "/secret-id/"
	v.policy(obj{role + "destroy": nil, role + "lookup": nil})
	cfg := v.withFile(v.wrapped())
	cfg.RequireProof = true
	trial, err := bootstrap.Try(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if trial.Boot().Proof != bootstrap.NotAllowed {
		t.Errorf("%+v", trial.Boot())
	}
	if err := trial.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
