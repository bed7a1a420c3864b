package provision_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

func (w *world) trust(e *provision.Estate) *provision.Trust {
	w.Helper()
	trust, err := provision.ReadTrust(w.Context(), w.client, e, -1)
	if err != nil {
		w.Fatal(err)
	}
	return trust
}

func TestIssueCert(t *testing.T) {
	w, e := rolling(t)
	trust := w.trust(e)
	var events []auditlog.Event
	cert, err := provision.IssueCert(t.Context(), w.client, e, w.hr(), 0, trust, noting{&events})
	if err != nil {
		t.Fatal(err)
	}
	values.add(cert.Key.Reveal())
	m, err := tlsconfig.ParseMaterial(slices.Concat(cert.Leaf, cert.Chain), cert.Key.Bytes(), trust.PEM())
	if err != nil {
		t.Fatal(err)
	}
	leaf := m.Leaf()
	if !slices.Equal(leaf.DNSNames, []string{w.hr(), "localhost"}) || len(leaf.IPAddresses) != 1 || len(leaf.URIs) != 1 {
		t.Errorf("names %q %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
	}
	if len(events) != 1 || events[0].Action != "certs.issue" || events[0].Outcome != auditlog.Success || events[0].Attributes["serial"] != colons(leaf) {
		t.Errorf("recorded: %+v", events)
	}
	if _, err := provision.IssueCert(t.Context(), w.client, e, w.hr(), 0, trust, deaf{}); err == nil || !strings.Contains(err.Error(), "cannot be recorded, so it is not used") {
		t.Errorf("unrecorded: %v", err)
	}
	if _, err := provision.IssueCert(t.Context(), w.client, e, "nobody", 0, trust, nil); err == nil || !strings.Contains(err.Error(), "no certificate is declared") {
		t.Errorf("for nobody: %v", err)
	}

	// What peers do not trust is not handed out.
	w.mustRoll(e, provision.RollConfig{Through: provision.RollReissue})
	if _, err := provision.IssueCert(t.Context(), w.client, e, w.hr(), 0, trust, nil); err == nil || !strings.Contains(err.Error(), "does not lead to a root that peers trust") {
		t.Errorf("from an intermediate that the trust does not know: %v", err)
	}
	if now := w.trust(e); len(now.Roots) != 2 || now.Issuing.Subject.CommonName != "owner-"+w.n+" intermediate 2" {
		t.Errorf("in a roll: %d roots, %s", len(now.Roots), now.Issuing.Subject)
	}
}

type noting struct{ events *[]auditlog.Event }

func (n noting) Append(_ context.Context, e auditlog.Event) error {
	*n.events = append(*n.events, e)
	return nil
}

func TestTrustBeforeThereIsAny(t *testing.T) {
	w := onReal(t)
	for text, want := range map[string]string{withPKI: "provision apply -f estate.yaml", small: "no section pki"} {
		if _, err := provision.ReadTrust(t.Context(), w.client, w.estate(text), -1); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

const rollEstate = `
owner: roll-example
pki: {root: {mount: example-root}, intermediate: {mount: example-pki}}
servers:
  postgres: {kind: postgres, sans: [postgres]}
`

// A certificate for a server, and new authorities a phase at a time.
func ExampleRoll() {
	server, err := theReal()
	if err != nil {
		log.Fatal(err)
	}
	client, err := vault.New(vault.Config{Addr: server.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	client, err = client.WithToken(secrets.NewString(server.RootToken()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	estate, err := provision.Load("estate.yaml", []byte(rollEstate))
	if err != nil {
		log.Fatal(err)
	}
	plan, err := provision.NewPlan(ctx, client, estate, provision.PlanConfig{Only: []provision.Stage{provision.StagePKI}})
	if err == nil {
		_, err = plan.Apply(ctx, provision.ApplyConfig{})
	}
	if err != nil {
		log.Fatal(err)
	}

	trust, err := provision.ReadTrust(ctx, client, estate, 0)
	if err != nil {
		log.Fatal(err)
	}
	cert, err := provision.IssueCert(ctx, client, estate, "postgres", time.Hour, trust, nil)
	if err != nil {
		log.Fatal(err)
	}
	block, _ := pem.Decode(cert.Leaf)
	fmt.Println(block.Type, cert.Key)

	report, err := provision.Roll(ctx, client, estate, provision.RollConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for _, step := range report.Done {
		fmt.Println(step.Phase+":", step.Text)
	}
	fmt.Println("next:", report.Phase, "- peers still have a while:", time.Until(report.Until) > time.Minute)
	// Output:
	// CERTIFICATE [redacted]
	// add: make the root phoenix-root-2 in example-root
	// add: make an intermediate below "roll-example root 2" in example-pki
	// next: re-issue - peers still have a while: true
}
