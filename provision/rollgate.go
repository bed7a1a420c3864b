package provision

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/internal/vault"
)

// gate returns why the phase of s must not be done yet.
func (r *roller) gate(ctx context.Context, s *rollState) (waiting []string, until time.Time, err error) {
	waiting = []string{}
	switch s.phase {
	case RollReissue:
		below := under(s.inPKI, s.target)
		if issuing := mainIssuer(s.inPKI); issuing != nil && issuing.below(s.target) {
			return waiting, until, nil // it is done already but for the root's mount
		}
		if until = below[len(below)-1].cert.NotBefore.Add(backdated + r.cfg.Settle); r.cfg.Settle > 0 && r.cfg.Now().Before(until) {
			return append(waiting, fmt.Sprintf("peers have until %s to read the new root", until.UTC().Format(time.RFC3339))), until, nil
		}
		connections, err := r.untrusting(ctx, s.target)
		if err != nil {
			return waiting, time.Time{}, err
		}
		look := RollLook{Phase: s.phase, Roots: namesOfCerts([]pkiIssuer{s.target})}
		if !r.looking {
			look.Sign = s.sign
		}
		behind, err := r.probe(ctx, look)
		return append(append(waiting, connections...), behind...), time.Time{}, err
	case RollRemove:
		if len(s.old) == 0 {
			return waiting, until, nil // all but keys is gone
		}
		issued, until, err := r.inUse(ctx, s)
		if err != nil {
			return waiting, until, err
		}
		behind, err := r.probe(ctx, RollLook{Phase: s.phase, Roots: namesOfCerts(s.old)})
		if len(behind) > 0 {
			until = time.Time{}
		}
		return append(append(waiting, issued...), behind...), until, err
	}
	return waiting, until, nil
}

// untrusting returns the connections to databases that Vault was sent the roots
// for, and not this one: a server with a certificate below it would be refused.
func (r *roller) untrusting(ctx context.Context, root pkiIssuer) (behind []string, err error) {
	u := r.estate.Users
	if u == nil {
		return nil, nil
	}
	for _, c := range u.Connections {
		if !c.CA.PKI {
			continue
		}
		path := u.Mount + "/config/" + c.Server
		have, err := r.conn.read(ctx, path, nil)
		if err != nil {
			return nil, err
		}
		trusted, _ := flat(have)["tls_ca"].(string)
		if have != nil && !strings.Contains(trusted, rootsPEM([]pkiIssuer{root})) {
			behind = append(behind, fmt.Sprintf("%s does not trust the new root; run phoenix provision apply -f %s --only %s", path, r.estate.File, StageDatabases))
		}
	}
	return behind, nil
}

// backdated is how far Vault dates an authority back.
const backdated = 30 * time.Second

func (r *roller) probe(ctx context.Context, look RollLook) ([]string, error) {
	if r.cfg.Probe == nil {
		return nil, nil
	}
	behind, err := r.cfg.Probe(ctx, look)
	if err != nil {
		return nil, fmt.Errorf("provision: look at peers before the phase %s: %w", look.Phase, err)
	}
	return behind, nil
}

// askingTTL is how long a certificate is good with which peers are asked. One
// from the old intermediate holds RollRemove up for as long.
const askingTTL = 5 * time.Minute

// sign is RollLook.Sign.
func (s *rollState) sign(ctx context.Context, name string, fresh bool) (*vault.Certificate, error) {
	trust := &Trust{}
	for _, i := range roots(s.inRoot) {
		trust.Roots = append(trust.Roots, i.cert)
	}
	issuer := mainIssuer(s.inPKI)
	if fresh {
		below := under(s.inPKI, s.target)
		issuer = &below[len(below)-1]
	}
	if issuer == nil {
		return nil, refuse("no issuer of %s is its default; make one: phoenix provision apply -f %s", s.pki.Intermediate.Mount, s.estate.File)
	}
	return issueFrom(ctx, s.conn.client, s.estate, name, issuer.id, askingTTL, trust, s.cfg.Audit)
}

func namesOfCerts(list []pkiIssuer) []*x509.Certificate {
	out := make([]*x509.Certificate, len(list))
	for i := range list {
		out[i] = list[i].cert
	}
	return out
}

// shownCerts is how many certificates are named before the rest is counted.
const shownCerts = 5

// inUse returns what still depends on the old roots, and when the last of it
// ends.
func (r *roller) inUse(ctx context.Context, s *rollState) (waiting []string, until time.Time, err error) {
	leaves, err := r.live(ctx, r.pki.Intermediate.Mount, s.oldCAs)
	if err != nil {
		return nil, until, err
	}
	authorities, err := r.live(ctx, r.pki.Root.Mount, s.old)
	if err != nil {
		return nil, until, err
	}
	known := func(cert *x509.Certificate) bool {
		return slices.ContainsFunc(slices.Concat(s.inRoot, s.inPKI), func(i pkiIssuer) bool {
			return string(i.cert.RawSubjectPublicKeyInfo) == string(cert.RawSubjectPublicKeyInfo)
		})
	}
	for _, cert := range slices.DeleteFunc(authorities, known) {
		waiting = append(waiting, fmt.Sprintf("%q (%s), which the old root has signed, is good until %s; replace it, then revoke it in %s",
			cert.Subject.CommonName, serial(cert), cert.NotAfter.UTC().Format(time.RFC3339), r.pki.Root.Mount))
		until = later(until, cert.NotAfter)
	}
	slices.SortFunc(leaves, func(a, b *x509.Certificate) int { return b.NotAfter.Compare(a.NotAfter) })
	for i, cert := range leaves {
		until = later(until, cert.NotAfter)
		switch {
		case i < shownCerts:
			waiting = append(waiting, fmt.Sprintf("a certificate of %s (%s) from the old intermediate is good until %s; it ends by itself, or revoke it in %s once it is replaced",
				cert.Subject.CommonName, serial(cert), cert.NotAfter.UTC().Format(time.RFC3339), r.pki.Intermediate.Mount))
		case i == shownCerts:
			waiting = append(waiting, fmt.Sprintf("and %d certificates more", len(leaves)-shownCerts))
		}
	}
	return waiting, until, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// live returns the certificates that a mount has kept, that one of issuers has
// signed, and that are neither expired nor revoked.
func (r *roller) live(ctx context.Context, mount string, issuers []pkiIssuer) ([]*x509.Certificate, error) {
	if len(issuers) == 0 {
		return nil, nil
	}
	serials, err := r.conn.list(ctx, mount+"/certs")
	if err != nil {
		return nil, err
	}
	now := r.cfg.Now()
	var mu sync.Mutex
	var out []*x509.Certificate
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookers)
	for _, number := range serials {
		group.Go(func() error {
			data, err := r.conn.read(ctx, mount+"/cert/"+number, nil)
			if err != nil || data == nil { // tidied away meanwhile
				return err
			}
			text, _ := data["certificate"].(string)
			cert, err := parsePEM(text)
			if err != nil {
				return fmt.Errorf("provision: the certificate %s of %s: %w", number, mount, err)
			}
			revoked, _ := data["revocation_time"].(json.Number)
			signed := func(i pkiIssuer) bool { return !i.cert.Equal(cert) && cert.CheckSignatureFrom(i.cert) == nil }
			if now.Before(cert.NotAfter) && (revoked == "" || revoked == "0") && slices.ContainsFunc(issuers, signed) {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, cert)
			}
			return nil
		})
	}
	return out, group.Wait()
}

// serial writes a serial number as Vault does: "3a:5e:…".
func serial(cert *x509.Certificate) string {
	var parts []string
	for _, b := range cert.SerialNumber.Bytes() {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}
