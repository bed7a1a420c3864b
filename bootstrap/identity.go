package bootstrap

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Identity is the service's own certificate, as [Config.Identity] declares it,
// with the authorities that the operator trusts at this moment.
//
// The certificate is renewed, with a new key, at a point drawn between 60% and
// 75% of its lifetime. The authorities are read anew with each renewal and
// every [Config.RootsPoll]; each change of either is a new generation. What
// does not fit is refused, with an event: a new certificate that no authority
// vouches for, and authorities that do not vouch for the certificate in use,
// which is then renewed at once. Until there is something better the last good
// pair and bundle stay, to the end of the certificate and also after Close.
//
// Without Config.Identity it stays empty, and every handshake is refused.
func (s *Session) Identity() tlsconfig.Identity { return s.identity }

// Roots are the self-signed issuers of [Config.Roots], or of the mount that it
// stands for: whom the operator trusts at this moment, which in a roll are the
// old and the new. Nobody may change them. replaced is closed when there are
// others. There are none, for ever, without Config.Roots, Identity and Issuer.
func (s *Session) Roots() (roots []*x509.Certificate, replaced <-chan struct{}) {
	if s.roots == nil {
		return nil, nil
	}
	return s.roots.Watch()
}

// An identity publishes the newest certificate with the newest roots.
type identity struct {
	tlsconfig.Live
	s     *Session
	renew chan struct{} // has the certificate renewed at once

	mu   sync.Mutex         // one publication at a time
	cert *vault.Certificate // the one that is published
}

// adopt publishes a new certificate with the roots as they are now.
func (id *identity) adopt(ctx context.Context, cert *vault.Certificate) error {
	changed := false
	if id.Current().Leaf() != nil { // else they have just been read
		changed, _ = id.s.roots.Refresh(ctx) // it tells of its failure itself
	}
	err := id.publish(cert)
	if err != nil && changed {
		id.rebundle()
	}
	return err
}

// rebundle publishes the roots as they are now with the certificate in use.
func (id *identity) rebundle() {
	if id.Current().Leaf() == nil {
		return // the first certificate is still to come, and will take them
	}
	err := id.publish(nil)
	if err == nil {
		id.s.note(auditlog.Event{Action: "session.trust.published", Category: auditlog.Security, Resource: id.s.cfg.rootsMount(),
			Attributes: map[string]string{"roots": names(id.Current().Bundle())}})
		return
	}
	id.s.cfg.Logger.Error("the trusted roots do not vouch for our certificate, which is renewed at once; the last ones stay", "error", err)
	id.s.trustFailing(err)
	select {
	case id.renew <- struct{}{}:
	default:
	}
}

// publish puts cert, or the one in use if it is nil, together with the roots.
func (id *identity) publish(cert *vault.Certificate) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if cert == nil {
		cert = id.cert
	}
	m, err := id.s.material(cert)
	if err != nil {
		return err
	}
	id.cert = cert
	id.Publish(m)
	return nil
}

// material puts a certificate and the roots together.
func (s *Session) material(cert *vault.Certificate) (*tlsconfig.Material, error) {
	chain, tops, err := chainOf(cert)
	if err != nil {
		return nil, err
	}
	bundle := s.roots.Current()
	if len(bundle) == 0 {
		bundle = tops
	}
	key, err := signer(cert.Key)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	if begins := chain[0].NotBefore; now.Before(begins) {
		now = begins // vault.IssueCert knows how far Vault's clock may be ahead
	}
	return tlsconfig.NewMaterialAt(now, key, chain, bundle)
}

// chainOf returns a certificate with those between it and the root, and what
// the chain ends in. That is an authority below the root if the role's mount
// does not know the root; then it is in the chain too, for peers know the root.
func chainOf(cert *vault.Certificate) (chain, tops []*x509.Certificate, err error) {
	if chain, err = tlsconfig.ParseCertificates(slices.Concat(cert.Leaf, cert.Chain)); err != nil {
		return nil, nil, err
	}
	if tops, err = tlsconfig.ParseCertificates(cert.CA); err != nil {
		return nil, nil, err
	}
	for _, top := range tops {
		if top.CheckSignatureFrom(top) != nil {
			chain = append(chain, top)
		}
	}
	return chain, tops, nil
}

func signer(key secrets.Secret) (crypto.Signer, error) {
	text := key.Bytes()
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the key is not in PEM form")
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key does not parse")
	}
	out, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", parsed)
	}
	return out, nil
}

func names(certs []*x509.Certificate) string {
	text := ""
	for i, c := range certs {
		if i > 0 {
			text += "; "
		}
		text += c.Subject.String() + " " + c.SerialNumber.Text(16)
	}
	return text
}

// checkTrust fills and checks what Identity and Issuer need besides the names.
func (cfg *Config) checkTrust() error {
	bad := func(remedy, format string, args ...any) error {
		return &Error{Step: "read the configuration", Err: fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...)), Remedy: remedy}
	}
	if cfg.Issuer == "" && cfg.Identity != nil {
		cfg.Issuer = cfg.Identity.Role
	}
	if cfg.Issuer != "" {
		mount, role, ok := pkiRole(cfg.Issuer)
		if !ok {
			return bad("write it as mount/sign/role, like pki/sign/mcp-hr-db", "the issuer %q is malformed", cfg.Issuer)
		}
		cfg.Issuer = mount + "/sign/" + role
	}
	if cfg.Roots != "" && secrets.CheckPath(cfg.Roots) != nil {
		return bad("write it without slashes at its ends, like pki-root", "the mount of the roots %q is malformed", cfg.Roots)
	}
	if cfg.RootsPoll == 0 {
		cfg.RootsPoll = time.Minute
	}
	return nil
}

// rootsMount is where the roots are. That of Identity's role is the default.
func (cfg *Config) rootsMount() string {
	if cfg.Roots != "" {
		return cfg.Roots
	}
	ref := cfg.Issuer
	if cfg.Identity != nil {
		ref = cfg.Identity.Role
	}
	mount, _, _ := pkiRole(ref)
	return mount
}

// keepRoots reads the trusted roots and follows them.
func (s *Session) keepRoots(ctx context.Context) (err error) {
	s.roots, err = vault.KeepRoots(ctx, s.client, vault.RootsConfig{
		Mount: s.cfg.rootsMount(), MayBeEmpty: s.cfg.Roots == "", Poll: s.cfg.RootsPoll, Log: s.cfg.Logger, Rand: s.cfg.Rand,
		Changed: s.identity.rebundle, Failing: s.trustFailing,
	})
	if err == nil {
		return nil
	}
	step := "read the trusted roots of " + s.cfg.rootsMount()
	if !vault.Retryable(err) && ctx.Err() == nil {
		return s.refuse(ctx, auditlog.Event{Action: "bootstrap.load", Category: auditlog.Authorization}, step, err,
			"name the PKI mount that holds the roots in Config.Roots; phoenix provision apply makes it")
	}
	return s.loadFailed(ctx, step, err)
}

// trustFailing is the alarm about roots that cannot be had or used.
func (s *Session) trustFailing(err error) {
	s.note(auditlog.Event{Action: "session.trust.failing", Category: auditlog.Security, Outcome: auditlog.Failure, Severity: auditlog.Warning,
		Resource: s.cfg.rootsMount(), Attributes: map[string]string{"reason": err.Error()}})
}
