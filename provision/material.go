package provision

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
)

// Trust is whom the estate's peers are to trust, and who signs at this moment.
type Trust struct {
	Roots   []*x509.Certificate // the self-signed issuers of the root's mount, the oldest first
	Issuing *x509.Certificate   // the intermediate
}

// ReadTrust reads what Vault tells everybody. During a roll there are two
// roots. It is a *Refusal if there is no PKI yet.
func ReadTrust(ctx context.Context, client *vault.Client, estate *Estate, patience time.Duration) (*Trust, error) {
	if estate.PKI == nil {
		return nil, refuse("%s has no section pki, so that there are no certificates", estate.File)
	}
	if patience == 0 {
		patience = defaultPatience
	}
	c := &conn{client: client, patience: patience}
	inRoot, err := c.issuers(ctx, estate.PKI.Root.Mount)
	if err != nil {
		return nil, err
	}
	inPKI, err := c.issuers(ctx, estate.PKI.Intermediate.Mount)
	if err != nil {
		return nil, err
	}
	t := &Trust{}
	now := time.Now()
	for _, i := range inRoot {
		if i.selfSigned() && now.Before(i.cert.NotAfter) {
			t.Roots = append(t.Roots, i.cert)
		}
	}
	if i := mainIssuer(inPKI); i != nil {
		t.Issuing = i.cert
	}
	if len(t.Roots) == 0 || t.Issuing == nil {
		return nil, refuse("there is no PKI in %s and %s yet; make it first: phoenix provision apply -f %s", estate.PKI.Root.Mount, estate.PKI.Intermediate.Mount, estate.File)
	}
	return t, nil
}

// IssueCert has the role of a service or server sign a certificate with all its
// names, for a new key that is made here, and verifies it against the roots. A
// TTL of 0 means that of the estate. It is recorded; what cannot be recorded is
// not returned.
func IssueCert(ctx context.Context, client *vault.Client, estate *Estate, name string, ttl time.Duration, trust *Trust, audit auditlog.Recorder) (*vault.Certificate, error) {
	return issueFrom(ctx, client, estate, name, "", ttl, trust, audit)
}

// issueFrom is IssueCert by the issuer of that ID, "" for the mount's default.
func issueFrom(ctx context.Context, client *vault.Client, estate *Estate, name, issuer string, ttl time.Duration, trust *Trust, audit auditlog.Recorder) (*vault.Certificate, error) {
	role, err := estate.CertRole(name)
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	if audit == nil {
		audit = auditlog.Slog(nil)
	}
	path := estate.PKI.SignPath(role.Name)
	if issuer != "" {
		path = estate.PKI.Intermediate.Mount + "/issuer/" + issuer + "/sign/" + role.Name
	}
	cert, err := client.IssueCert(ctx, vault.CertRequest{
		Role: path, CommonName: role.CommonName(), DNSNames: role.DNS, IPs: role.NetIPs(), URIs: role.ParsedURIs(), TTL: ttl,
	}, time.Now())
	if err == nil {
		err = trust.verify(cert)
	}
	event := auditlog.Event{
		Service: "phoenix", Environment: estate.Environment, Category: auditlog.System, Severity: auditlog.Notice,
		Action: "certs.issue", Resource: path, Outcome: auditlog.Success,
		Attributes: map[string]string{"for": name, "vault": client.Addr()},
	}
	if err != nil {
		event.Outcome, event.Severity = auditlog.Failure, auditlog.Error
		event.Attributes["error"] = err.Error()
	} else {
		event.Attributes["serial"], event.Attributes["ends"] = cert.Serial, cert.NotAfter.UTC().Format(time.RFC3339)
	}
	if auditErr := audit.Append(ctx, event); auditErr != nil && err == nil {
		return nil, fmt.Errorf("provision: the certificate of %s cannot be recorded, so it is not used: %w", name, auditErr)
	}
	if err != nil {
		return nil, fmt.Errorf("provision: the certificate of %s: %w", name, err)
	}
	return cert, nil
}

// verify makes sure that peers which trust the roots will accept cert.
func (t *Trust) verify(cert *vault.Certificate) error {
	leaf, err := parsePEM(string(cert.Leaf))
	if err != nil {
		return err
	}
	known, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range t.Roots {
		known.AddCert(r)
	}
	between.AppendCertsFromPEM(cert.Chain)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: known, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("it does not lead to a root that peers trust: %w; if a roll is under way, run again", err)
	}
	return nil
}

// PEM returns the roots as a bundle.
func (t *Trust) PEM() []byte {
	var out []byte
	for _, r := range t.Roots {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Raw})...)
	}
	return out
}
