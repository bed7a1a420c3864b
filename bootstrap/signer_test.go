package bootstrap_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

// withKey makes a signing key that the service may use, and nothing else there.
func (v *vaultT) withKey() {
	v.Helper()
	v.must("POST", "sys/mounts/transit-"+v.name, obj{"type": "transit"})
	v.must("POST", v.keyPath("keys"), obj{"type": "ed25519"})
	v.policy(obj{v.keyPath("sign"): caps("update"), v.keyPath("keys"): caps("read")})
}

func (v *vaultT) keyPath(what string) string { return "transit-" + v.name + "/" + what + "/" + v.name }

// publicKeys are those of all versions, as an operator sees them.
func (v *vaultT) publicKeys() []ed25519.PublicKey {
	v.Helper()
	data, _ := v.must("GET", v.keyPath("keys"), nil)["data"].(obj)
	versions, _ := data["keys"].(obj)
	var out []ed25519.PublicKey
	for _, version := range versions {
		text, _ := version.(obj)["public_key"].(string)
		public, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			v.Fatal(err)
		}
		out = append(out, public)
	}
	return out
}

func openLog(t *testing.T, cfg auditlog.Config) *auditlog.Log {
	t.Helper()
	log, err := auditlog.Open(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(context.Background()) })
	return log
}

func verifyLog(t *testing.T, dir string, keys []ed25519.PublicKey) *auditlog.Report {
	t.Helper()
	report, err := auditlog.Verify(context.Background(), os.DirFS(dir), auditlog.VerifyConfig{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// The log is open before the boot and is signed by a key that never leaves
// Vault: the boot itself, the rotation of the key, and the session's end.
func TestTheLogIsSignedByVault(t *testing.T) {
	v := onReal(t)
	v.withKey()
	log := openLog(t, auditlog.Config{CheckpointEvery: time.Hour})
	cfg := v.config(v.wrapped())
	cfg.Audit, cfg.Signer = log, v.keyPath("sign")
	s := v.start(cfg)
	if err := log.Attach(s.Signer()); err != nil {
		t.Fatal(err)
	}
	if err := log.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	booted := log.Status()
	if booted.Unsealed > 1 || booted.Failing != "" { // the checkpoint itself
		t.Errorf("after the boot: %+v", booted)
	}
	v.must("POST", v.keyPath("keys")+"/rotate", obj{})
	if err := log.Append(t.Context(), auditlog.Accessed(auditlog.Actor{User: "alice"}, "employees/4711", auditlog.Success)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Signer().Sign(t.Context(), []byte("x")); !errors.Is(err, auditlog.ErrSignerGone) || !errors.Is(err, bootstrap.ErrClosed) {
		t.Errorf("after its end the session signs: %v", err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := v.publicKeys()
	report := verifyLog(t, log.Dir(), keys)
	if report.Err() != nil || len(keys) != 2 || !report.Epochs[0].Closed || report.Epochs[0].Unsealed != 0 {
		t.Errorf("%v, with %d keys: %+v", report.Err(), len(keys), report.Epochs)
	}
	var actions []string
	for entry, err := range auditlog.Read(os.DirFS(log.Dir()), nil) {
		if e, _ := entry.Event(); err == nil && entry.Kind == auditlog.KindEvent {
			actions = append(actions, e.Action)
		}
	}
	if !slices.Contains(actions, "bootstrap.login") || actions[len(actions)-1] != "session.closed" {
		t.Errorf("%v", actions)
	}
	if one := verifyLog(t, log.Dir(), keys[:1]); one.Err() == nil {
		t.Error("it verifies with one of two keys")
	}
}

// A key that is not there, not allowed or not fit is a start that fails and
// says what to do; so is a reference that is none.
func TestSignersThatAreRefused(t *testing.T) {
	v := onReal(t)
	cfg := v.config(v.wrapped())
	cfg.Signer = "transit/" + v.name
	v.fails(cfg, bootstrap.ErrConfig, "transit/sign/mcp-hr")
	cfg = v.config(v.wrapped())
	cfg.Signer = v.keyPath("sign")
	v.fails(cfg, bootstrap.ErrDenied, "policies do not allow it")
	v.withKey()
	v.must("POST", "transit-"+v.name+"/keys/aes", obj{})
	v.policy(obj{"transit-" + v.name + "/keys/*": caps("read")})
	cfg = v.config(v.wrapped())
	cfg.Signer = "transit-" + v.name + "/sign/none"
	v.fails(cfg, bootstrap.ErrConfig, "not found", "audit section")
	cfg = v.config(v.wrapped())
	cfg.Signer = "transit-" + v.name + "/sign/aes"
	v.fails(cfg, bootstrap.ErrConfig, "make one of type ed25519")

	cfg = v.config(v.wrapped())
	cfg.Signer = v.keyPath("sign") // which it may read, and not sign with
	s := v.start(cfg)
	if _, _, err := s.Signer().Sign(t.Context(), []byte("x")); !errors.Is(err, bootstrap.ErrDenied) || !strings.Contains(err.Error(), "audit section") {
		t.Errorf("%v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = v.start(v.config(v.wrapped()))
	if _, _, err := s.Signer().Sign(t.Context(), []byte("x")); !errors.Is(err, bootstrap.ErrConfig) || !strings.Contains(err.Error(), "Config.Signer") {
		t.Errorf("%v", err)
	}
}

// While Vault is away the log goes on, and its status has the window that
// nobody has signed. It ends when Vault is back, or at a hand-over.
func TestTheLogWhileVaultIsAway(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		d.withKey()
		log := openLog(t, auditlog.Config{CheckpointEvery: time.Second})
		cfg := d.with(d.withFile(d.wrapped()))
		cfg.Audit, cfg.Signer = log, d.keyPath("sign")
		s := d.start(cfg)
		if err := log.Attach(s.Signer()); err != nil {
			t.Fatal(err)
		}
		settle := func() auditlog.Status {
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			return log.Status()
		}
		if st := settle(); st.Failing != "" || st.Unsealed > 1 {
			t.Fatalf("%+v", st)
		}
		d.server.Seal()
		for range 3 {
			if err := log.Append(t.Context(), auditlog.Event{Action: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		if st := settle(); !strings.Contains(st.Failing, "Vault is sealed") || st.Unsealed < 3 {
			t.Errorf("away: %+v", st)
		}
		d.server.Unseal()
		if st := settle(); st.Failing != "" || st.Unsealed > 1 {
			t.Errorf("back: %+v", st)
		}
		d.drop(cfg.SecretIDFile, d.wrapped())
		d.must("POST", "auth/token/revoke-accessor", obj{"accessor": s.Boot().Accessor})
		if err := log.Append(t.Context(), auditlog.Event{Action: "y"}); err != nil {
			t.Fatal(err)
		}
		if st := settle(); st.Failing != "" || st.Unsealed > 1 || s.Ready() != nil {
			t.Errorf("after the hand-over: %+v, %v", st, s.Ready())
		}
		if err := errors.Join(s.Close(t.Context()), log.Close(t.Context())); err != nil {
			t.Error(err)
		}
		if r := verifyLog(t, log.Dir(), d.publicKeys()); r.Err() != nil || !r.Epochs[0].Closed {
			t.Errorf("%v %+v", r.Err(), r.Epochs)
		}
	})
}

// The log before everything, and signed by Vault as soon as there is a session.
func ExampleSession_Signer() {
	ctx := context.Background()
	v, err := vaulttest.Start(vaulttest.Config{}) // in production: Vault, provisioned with an audit section
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	v.SigningKey("transit/mcp-hr")
	roleID, secretID := v.AppRole("mcp-hr")
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	log, err := auditlog.Open(dir, auditlog.Config{Service: "mcp-hr"})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := bootstrap.Start(ctx, bootstrap.Config{
		Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID), Audit: log, Signer: "transit/sign/mcp-hr",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Attach(s.Signer()); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Close(ctx), log.Close(ctx))

	report, err := auditlog.Verify(ctx, os.DirFS(dir), auditlog.VerifyConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Err(), report.Epochs[0].Closed, report.Epochs[0].Unsealed)
	// Output:
	// <nil> <nil>
	// <nil> true 0
}

// A host and its Vault are wiped and built again: the new log is an epoch of
// its own, signed by a new key, and names the last checkpoint that the old one
// has left at the anchor. The verifier lists both, and says that the old one
// was never closed.
func TestARebuiltHostBeginsAnEpoch(t *testing.T) {
	leakCheck(t)
	v := vaulttest.New(t)
	anchors := t.TempDir()
	anchor, err := auditlog.DirAnchor(anchors)
	if err != nil {
		t.Fatal(err)
	}
	var keys []ed25519.PublicKey
	life := func() (*auditlog.Log, *bootstrap.Session) {
		v.SigningKey("transit/mcp-hr")
		roleID, secretID := v.AppRole("mcp-hr")
		log := openLog(t, auditlog.Config{Anchor: anchor})
		s, err := bootstrap.Start(t.Context(), bootstrap.Config{
			Service: "mcp-hr", Addr: v.Addr(), RoleID: roleID, SecretID: secrets.NewString(secretID), Audit: log, Signer: "transit/sign/mcp-hr", Poll: -1, LookupEnv: emptyEnv,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the first has nobody to say farewell to
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			s.Close(ctx)
		})
		if err := log.Attach(s.Signer()); err != nil {
			t.Fatal(err)
		}
		_, public, err := s.Signer().Sign(t.Context(), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, public)
		return log, s
	}
	first, _ := life()
	if err := first.Append(t.Context(), auditlog.Event{Action: "before"}); err != nil {
		t.Fatal(err)
	}
	if err := first.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	for first.Status().Anchored < first.Status().Sealed {
		runtime.Gosched() // the anchor has it in a moment
	}
	lost := first.Status().Epoch

	v.Wipe() // and nobody closes anything
	second, s := life()
	if err := second.Append(t.Context(), auditlog.Event{Action: "after"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(t.Context()), second.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	report, err := auditlog.Verify(t.Context(), os.DirFS(second.Dir()), auditlog.VerifyConfig{Keys: keys, Anchors: os.DirFS(anchors)})
	if err != nil || report.Err() != nil || len(report.Epochs) != 2 {
		t.Fatalf("%v %v %+v", err, report.Err(), report.Epochs)
	}
	if old, now := report.Epochs[0], report.Epochs[1]; old.Epoch != lost || now.Follows != lost || !now.Closed || now.Open != 0 {
		t.Errorf("%+v", report.Epochs)
	}
	if notes := strings.Join(report.Notes, "\n"); !strings.Contains(notes, "an earlier life of the host") {
		t.Errorf("%s", notes)
	}
	// Each key is needed, and the anchors tell of the old one.
	one, err := auditlog.Verify(t.Context(), os.DirFS(second.Dir()), auditlog.VerifyConfig{Keys: keys[1:], Anchors: os.DirFS(anchors)})
	if err != nil || one.Err() == nil || one.Findings[0].Damage != auditlog.WrongKey || one.Findings[0].Epoch != lost {
		t.Errorf("%v %v", err, one.Err())
	}
}
