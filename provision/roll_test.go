package provision_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

// rolling is a world with a PKI that is about to be rolled.
func rolling(t *testing.T) (*world, *provision.Estate) {
	w := onReal(t)
	return w, w.rolling()
}

func (w *world) rolling() *provision.Estate {
	w.Helper()
	e := w.estate(withPKI)
	w.apply(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}})
	w.front.take()
	return e
}

// roll is Roll without waiting for peers to settle.
func (w *world) roll(e *provision.Estate, cfg provision.RollConfig) (*provision.RollReport, error) {
	if cfg.Settle == 0 {
		cfg.Settle = -1
	}
	cfg.Patience, cfg.Audit = -1, recorder{}
	report, err := provision.Roll(w.Context(), w.client, e, cfg)
	seen.add(fmt.Sprintf("%+v %v", report, err))
	return report, err
}

func (w *world) mustRoll(e *provision.Estate, cfg provision.RollConfig) *provision.RollReport {
	w.Helper()
	report, err := w.roll(e, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return report
}

// holds returns the subjects of a mount's issuers, the issuing one with a star,
// and the number of its keys.
func (w *world) holds(mount string) (subjects []string, keys int) {
	w.Helper()
	ids, err := w.client.List(w.Context(), mount+"/issuers")
	if err != nil {
		w.Fatal(err)
	}
	main := fmt.Sprint(w.read(mount + "/config/issuers")["default"])
	for _, id := range ids {
		cert := w.parse(fmt.Sprint(w.read(mount + "/issuer/" + id + "/json")["certificate"]))
		name := strings.TrimPrefix(cert.Subject.CommonName, "owner-"+w.n+" ")
		if id == main {
			name += "*"
		}
		subjects = append(subjects, name)
	}
	slices.Sort(subjects)
	all, err := w.client.List(w.Context(), mount+"/keys")
	if err != nil {
		w.Fatal(err)
	}
	return subjects, len(all)
}

func (w *world) wantHolds(mount string, keys int, want ...string) {
	w.Helper()
	if got, n := w.holds(mount + "-" + w.n); !slices.Equal(got, want) || n != keys {
		w.Errorf("%s holds %q and %d keys, want %q and %d", mount, got, n, want, keys)
	}
}

func TestRollPhaseByPhase(t *testing.T) {
	w, e := rolling(t)
	old, err := w.sign(w.client, w.hr(), w.hr())
	if err != nil {
		t.Fatal(err)
	}
	w.front.take()
	look, err := provision.LookRoll(t.Context(), w.client, e, provision.RollConfig{Patience: -1})
	if err != nil || look.Phase != provision.RollIdle || len(look.Authorities) != 2 {
		t.Fatalf("before: %+v, %v", look, err)
	}
	if writes, _ := w.front.take(); len(writes) > 0 {
		t.Errorf("a look writes: %q", writes)
	}

	r := w.mustRoll(e, provision.RollConfig{Through: provision.RollAdd})
	if r.Phase != provision.RollReissue || len(r.Done) != 2 {
		t.Errorf("after add: %+v", r)
	}
	w.wantHolds("root", 2, "root 1*", "root 2")
	w.wantHolds("pki", 2, "intermediate 1*", "intermediate 2", "root 1", "root 2")
	if plan := w.plan(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}}); plan.Drift() {
		t.Errorf("a plan in the middle of a roll shows drift: %+v", plan.Changes)
	}

	// Peers have a while to read the new root.
	r = w.mustRoll(e, provision.RollConfig{Settle: 5 * time.Minute})
	if len(r.Done) > 0 || len(r.Waiting) != 1 || !strings.Contains(r.Waiting[0], "peers have until") || time.Until(r.Until) < 4*time.Minute {
		t.Errorf("before peers can have read it: %+v", r)
	}
	in6 := func() time.Time { return time.Now().Add(6 * time.Minute) }
	r = w.mustRoll(e, provision.RollConfig{Settle: 5 * time.Minute, Through: provision.RollReissue, Now: in6})
	if r.Phase != provision.RollRemove || len(r.Done) != 2 {
		t.Errorf("after re-issue: %+v", r)
	}
	w.wantHolds("root", 2, "root 1", "root 2*")
	w.wantHolds("pki", 2, "intermediate 1", "intermediate 2*", "root 1", "root 2")
	cert, err := w.sign(w.client, w.hr(), w.hr())
	if err != nil || cert.Issuer.CommonName != "owner-"+w.n+" intermediate 2" {
		t.Errorf("the next certificate: %v, %v", cert, err)
	}

	// The old root stays while a certificate depends on it.
	r = w.mustRoll(e, provision.RollConfig{})
	if r.Phase != provision.RollRemove || len(r.Done) > 0 || len(r.Waiting) != 1 || !strings.Contains(r.Waiting[0], w.hr()) || !r.Until.Equal(old.NotAfter) {
		t.Errorf("with a certificate in use: %+v", r)
	}
	w.write("pki-"+w.n+"/revoke", map[string]any{"serial_number": colons(old)})
	r = w.mustRoll(e, provision.RollConfig{})
	if r.Phase != provision.RollIdle || len(r.Waiting) > 0 {
		t.Errorf("after remove: %+v", r)
	}
	w.wantHolds("root", 1, "root 2*")
	w.wantHolds("pki", 1, "intermediate 2*", "root 2")
	if plan := w.plan(e, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}}); plan.Drift() {
		t.Errorf("a plan after a roll shows drift: %+v", plan.Changes)
	}
	if _, err := w.sign(w.client, w.hr(), w.hr()); err != nil {
		t.Errorf("after the roll: %v", err)
	}
}

func colons(cert *x509.Certificate) string {
	var parts []string
	for _, b := range cert.SerialNumber.Bytes() {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}

// An expired certificate holds nothing up, and one from the new intermediate
// neither.
func TestRollIsNotHeldUpByWhatIsOver(t *testing.T) {
	w, e := rolling(t)
	if _, err := w.sign(w.client, w.hr(), w.hr()); err != nil {
		t.Fatal(err)
	}
	w.mustRoll(e, provision.RollConfig{Through: provision.RollReissue})
	if _, err := w.sign(w.client, w.hr(), w.hr()); err != nil {
		t.Fatal(err)
	}
	tomorrow := func() time.Time { return time.Now().Add(13 * time.Hour) }
	if r := w.mustRoll(e, provision.RollConfig{Now: tomorrow}); r.Phase != provision.RollIdle {
		t.Errorf("got %+v", r)
	}
}

// The old root stays while another authority below it is in use.
func TestRollSeesOtherAuthorities(t *testing.T) {
	w, e := rolling(t)
	root := "root-" + w.n
	w.write("sys/mounts/other-"+w.n, map[string]any{"type": "pki"})
	csr := w.write("other-"+w.n+"/intermediate/generate/internal", map[string]any{"common_name": "somebody else's", "key_type": "ec"})["csr"]
	signed := w.write(root+"/root/sign-intermediate", map[string]any{"csr": csr, "common_name": "somebody else's"})
	r := w.mustRoll(e, provision.RollConfig{})
	if r.Phase != provision.RollRemove || len(r.Waiting) != 1 || !strings.Contains(r.Waiting[0], "somebody else's") {
		t.Errorf("got %+v", r)
	}
	w.write(root+"/revoke", map[string]any{"serial_number": signed["serial_number"]})
	if r := w.mustRoll(e, provision.RollConfig{}); r.Phase != provision.RollIdle {
		t.Errorf("after it was revoked: %+v", r)
	}
}

// A probe is asked before each phase that peers must be ready for, and who is
// behind stops it.
func TestRollAsksTheProbe(t *testing.T) {
	w, e := rolling(t)
	behind := map[provision.RollPhase][]string{provision.RollReissue: {"kong does not trust it"}, provision.RollRemove: {"redis still shows it"}}
	asked := map[provision.RollPhase]string{}
	cfg := provision.RollConfig{Probe: func(_ context.Context, look provision.RollLook) ([]string, error) {
		phase := look.Phase
		for _, r := range look.Roots {
			asked[phase] += strings.TrimPrefix(r.Subject.CommonName, "owner-"+w.n+" ")
		}
		return behind[phase], nil
	}}
	for _, phase := range []provision.RollPhase{provision.RollReissue, provision.RollRemove} {
		r := w.mustRoll(e, cfg)
		if r.Phase != phase || !slices.Equal(r.Waiting, behind[phase]) {
			t.Errorf("%s: %+v", phase, r)
		}
		behind[phase] = nil
	}
	if r := w.mustRoll(e, cfg); r.Phase != provision.RollIdle {
		t.Errorf("in the end: %+v", r)
	}
	if !strings.HasPrefix(asked[provision.RollReissue], "root 2") || !strings.HasPrefix(asked[provision.RollRemove], "root 1") {
		t.Errorf("asked for %q", asked)
	}
	bad := errors.New("the probe is broken")
	cfg.Probe = func(context.Context, provision.RollLook) ([]string, error) { return nil, bad }
	if _, err := w.roll(e, cfg); !errors.Is(err, bad) {
		t.Errorf("a probe that fails: %v", err)
	}
	w.wantHolds("pki", 2, "intermediate 2*", "intermediate 3", "root 2", "root 3")
}

// Before re-issue peers can be asked with a certificate from below the new root,
// and with one that they know; a look has none, and the certificates end soon.
func TestRollSignsToAskPeers(t *testing.T) {
	w, e := rolling(t)
	var asked int
	behind := []string{"redis does not trust it"}
	cfg := provision.RollConfig{Probe: func(ctx context.Context, look provision.RollLook) ([]string, error) {
		if look.Phase == provision.RollRemove {
			if look.Sign != nil {
				t.Error("certificates to ask with before remove")
			}
			return nil, nil
		}
		asked++
		for fresh, by := range map[bool]string{true: " intermediate 2", false: " intermediate 1"} {
			cert, err := look.Sign(ctx, w.hr(), fresh)
			if err != nil {
				return nil, err
			}
			leaf := w.parse(string(cert.Leaf))
			if leaf.Issuer.CommonName != "owner-"+w.n+by || !slices.Contains(leaf.DNSNames, w.hr()) || time.Until(leaf.NotAfter) > 5*time.Minute {
				t.Errorf("fresh=%t: %s for %q until %s", fresh, leaf.Issuer, leaf.DNSNames, leaf.NotAfter)
			}
			if got := w.parse(string(cert.CA)); fresh && !got.Equal(look.Roots[0]) {
				t.Errorf("it leads to %s", got.Subject)
			}
		}
		return behind, nil
	}}
	r := w.mustRoll(e, cfg)
	if asked != 1 || r.Phase != provision.RollReissue || !slices.Equal(r.Waiting, behind) {
		t.Errorf("asked %d times: %+v", asked, r)
	}
	w.wantHolds("pki", 2, "intermediate 1*", "intermediate 2", "root 1", "root 2")
	w.front.take()
	look, err := provision.LookRoll(t.Context(), w.client, e, provision.RollConfig{Settle: -1, Patience: -1, Probe: func(_ context.Context, look provision.RollLook) ([]string, error) {
		if look.Sign != nil {
			t.Error("a look can sign")
		}
		return behind, nil
	}})
	if writes, _ := w.front.take(); err != nil || len(writes) > 0 || !slices.Equal(look.Waiting, behind) {
		t.Errorf("a look: %+v, %v, writes %q", look, err, writes)
	}
	// The certificates of the asking hold the end up no longer than they last.
	behind = nil
	in6 := func() time.Time { return time.Now().Add(6 * time.Minute) }
	cfg.Now = in6
	if r := w.mustRoll(e, cfg); r.Phase != provision.RollIdle || asked != 2 {
		t.Errorf("in the end, asked %d times: %+v", asked, r)
	}
}

// A roll that is cut at any write, before Vault hears of it or after, is
// finished by the next runs: one root, one intermediate, one key each.
func TestRollGoesOnAfterAnyWrite(t *testing.T) {
	for lost, begin := range map[string]func(*testing.T) *world{"request": onReal, "answer": newDouble} {
		for i := 1; ; i++ {
			w := begin(t)
			e := w.rolling()
			writes := 0
			w.front.onRequest(func(r *http.Request) (before, after bool) {
				if !isWrite(r.Method, strings.TrimPrefix(r.URL.Path, "/v1/")) {
					return false, false
				}
				writes++
				return writes == i && lost == "request", writes == i && lost == "answer"
			})
			r, err := w.roll(e, provision.RollConfig{})
			w.front.onRequest(nil)
			if err == nil {
				if r.Phase != provision.RollIdle || i < 10 {
					t.Errorf("%d writes: %+v", i-1, r)
				}
				break
			}
			if !errors.Is(err, provision.ErrStopped) {
				t.Errorf("write %d: %v", i, err)
			}
			if _, err := w.sign(w.client, w.hr(), w.hr()); err != nil {
				t.Errorf("write %d, %s lost: no certificate in between: %v", i, lost, err)
			}
			next := w.mustRoll(e, provision.RollConfig{Now: func() time.Time { return time.Now().Add(13 * time.Hour) }})
			if next.Phase != provision.RollIdle {
				t.Errorf("write %d, %s lost: %+v", i, lost, next)
			}
			number := "2"
			if got, _ := w.holds("root-" + w.n); slices.Contains(got, "root 3*") {
				number = "3" // the last answer was lost: the roll was over, and this was another
			}
			w.wantHolds("root", 1, "root "+number+"*")
			w.wantHolds("pki", 1, "intermediate "+number+"*", "root "+number)
		}
	}
}

func TestRollRefusals(t *testing.T) {
	w := onReal(t)
	if _, err := w.roll(w.estate(small), provision.RollConfig{}); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "no section pki") {
		t.Errorf("without pki: %v", err)
	}
	if _, err := w.roll(w.estate(withPKI), provision.RollConfig{}); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "provision apply") {
		t.Errorf("before there is a root: %v", err)
	}
	if _, err := provision.ParseRollPhase("reissue"); err == nil || !strings.Contains(err.Error(), `did you mean "re-issue"?`) {
		t.Errorf("a phase that is misspelt: %v", err)
	}
	w, e := rolling(t)
	c := w.as(w.token("default"))
	if _, err := provision.Roll(t.Context(), c, e, provision.RollConfig{Patience: -1}); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("by somebody: %v", err)
	}
	failing := provision.RollConfig{Patience: -1, Audit: deaf{}}
	if _, err := provision.Roll(t.Context(), w.client, e, failing); err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
		t.Errorf("unrecorded: %v", err)
	}
	w.wantHolds("root", 1, "root 1*")
}

// deaf is a recorder that cannot record.
type deaf struct{}

func (deaf) Append(context.Context, auditlog.Event) error { return errors.New("the disk is full") }

func (w *world) parse(text string) *x509.Certificate {
	w.Helper()
	certs, err := tlsconfig.ParseCertificates([]byte(text))
	if err != nil {
		w.Fatal(err)
	}
	return certs[0]
}
