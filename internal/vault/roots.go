package vault

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// RootsConfig is how a [RootsKeeper] works.
type RootsConfig struct {
	Mount string // of type pki: "pki-root"
	// MayBeEmpty accepts a mount that has no root, until it has had one.
	MayBeEmpty bool
	Poll       time.Duration // the mean time between looks; negative: never
	Log        *slog.Logger
	Rand       func() float64 // uniform in [0,1)
	// Changed, if not nil, is called after a look of the keeper's own that
	// found other roots than the one before.
	Changed func()
	// Failing, if not nil, is told when looks begin to fail, once in a row.
	Failing func(err error)
}

// RootsKeeper follows the roots of a PKI mount: its self-signed issuers, which
// are what an operator wants to be trusted. While Vault cannot be asked, or
// answers that there are none, the last ones stay.
//
// Vault tells them to anybody, so that no token and no policy is needed. A root
// that was only revoked is still told: to be trusted no more, it is deleted.
type RootsKeeper struct {
	cfg    RootsConfig
	client *Client
	stop   context.CancelFunc
	wg     sync.WaitGroup

	looking  sync.Mutex // one look at a time
	mu       sync.Mutex
	issuers  map[string]*x509.Certificate // by the issuer's id, which never changes its certificate
	roots    []*x509.Certificate
	replaced chan struct{} // closed when roots are not the newest any more
	problem  error
}

// KeepRoots reads the roots of a mount, waiting out what may pass, and follows
// them until Close. The client needs no token.
func KeepRoots(ctx context.Context, client *Client, cfg RootsConfig) (*RootsKeeper, error) {
	k := &RootsKeeper{cfg: cfg, client: client, replaced: make(chan struct{})}
	err := k.client.Retry(ctx, cfg.Mount+"/issuers", func(ctx context.Context) error {
		_, err := k.look(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	var life context.Context
	life, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	if cfg.Poll > 0 {
		k.wg.Go(func() { k.follow(life) })
	}
	return k, nil
}

// Close ends the looks and waits for one that is under way.
func (k *RootsKeeper) Close() {
	k.stop()
	k.wg.Wait()
}

// Current returns the newest roots; nobody may change them.
func (k *RootsKeeper) Current() []*x509.Certificate {
	roots, _ := k.Watch()
	return roots
}

// Watch is Current with a channel that is closed when there are others.
func (k *RootsKeeper) Watch() (roots []*x509.Certificate, replaced <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.roots, k.replaced
}

func (k *RootsKeeper) follow(ctx context.Context) {
	for {
		timer := time.NewTimer(time.Duration((0.75 + k.cfg.Rand()/2) * float64(k.cfg.Poll)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if changed, _ := k.Refresh(ctx); changed && k.cfg.Changed != nil {
			k.cfg.Changed()
		}
	}
}

// Refresh looks now, and reports whether the roots are others than before. A
// failure is logged, told to Failing, and leaves them as they are.
func (k *RootsKeeper) Refresh(ctx context.Context) (changed bool, err error) {
	changed, err = k.look(ctx)
	if ctx.Err() != nil && err != nil {
		return false, err // the look was given up; nothing is known of Vault
	}
	k.mu.Lock()
	before := k.problem
	k.problem = err
	k.mu.Unlock()
	switch {
	case err != nil && before == nil:
		k.cfg.Log.Error("the trusted roots cannot be read; the last ones stay", "mount", k.cfg.Mount, "error", err)
		if k.cfg.Failing != nil {
			k.cfg.Failing(err)
		}
	case err == nil && before != nil:
		k.cfg.Log.Info("the trusted roots can be read again", "mount", k.cfg.Mount)
	}
	return changed, err
}

func (k *RootsKeeper) look(ctx context.Context) (changed bool, err error) {
	k.looking.Lock()
	defer k.looking.Unlock()
	issuers, err := k.client.issuers(ctx, k.cfg.Mount, k.issuers)
	if err != nil {
		return false, err
	}
	var roots []*x509.Certificate
	for _, cert := range issuers {
		if cert.IsCA && cert.CheckSignatureFrom(cert) == nil {
			roots = append(roots, cert)
		}
	}
	slices.SortFunc(roots, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(roots) == 0 && (!k.cfg.MayBeEmpty || len(k.roots) > 0) {
		return false, &Error{Op: "read the trusted roots", Path: k.cfg.Mount + "/issuers", Class: ErrNotFound, Sent: true, Detail: "the mount has no self-signed issuer"}
	}
	k.issuers = issuers
	if slices.EqualFunc(roots, k.roots, func(a, b *x509.Certificate) bool { return a.Equal(b) }) {
		return false, nil
	}
	k.roots = roots
	close(k.replaced)
	k.replaced = make(chan struct{})
	return true, nil
}

// issuers returns the certificates of a PKI mount's issuers by their ids. What
// is in known is not read again.
func (c *Client) issuers(ctx context.Context, mount string, known map[string]*x509.Certificate) (map[string]*x509.Certificate, error) {
	keys, err := c.issuerKeys(ctx, mount)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*x509.Certificate, len(keys))
	for id := range keys {
		if out[id] = known[id]; out[id] != nil {
			continue
		}
		path := mount + "/issuer/" + id + "/json"
		resp, err := c.Read(ctx, path, nil)
		if issuerGone(err) {
			delete(out, id)
			continue
		}
		if err != nil {
			return nil, err
		}
		if out[id], err = parseCert(text(resp, "certificate")); err != nil {
			return nil, fmt.Errorf("vault: read an issuer (%s): its certificate does not parse: %w", path, err)
		}
	}
	return out, nil
}

// issuerKeys returns the ids of a PKI mount's issuers with those of their keys,
// "" where the mount has the certificate alone.
func (c *Client) issuerKeys(ctx context.Context, mount string) (map[string]string, error) {
	resp, err := c.do(ctx, "list the issuers", mount+"/issuers", func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ListWithContext(ctx, mount+"/issuers")
	})
	if errors.Is(err, ErrNotFound) || (err == nil && resp == nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, _ := resp.Data["key_info"].(map[string]any)
	keys := make(map[string]string, len(info))
	for id, about := range info {
		about, _ := about.(map[string]any)
		keys[id], _ = about["key_id"].(string)
	}
	return keys, nil
}

// issuerGone reports whether an issuer was deleted since it was listed, as in a
// roll. Vault calls that an internal error.
func issuerGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && strings.Contains(e.Detail, "unable to find PKI issuer")
}

// A CRL is the list of one authority.
type CRL struct {
	Authority *x509.Certificate
	List      []byte // PEM
}

// CRLs returns the CRLs of a PKI mount, one of each issuer that can sign one.
// Vault tells them to anybody.
func (c *Client) CRLs(ctx context.Context, mount string) ([]CRL, error) {
	keys, err := c.issuerKeys(ctx, mount)
	if err != nil {
		return nil, err
	}
	issuers, err := c.issuers(ctx, mount, nil)
	if err != nil {
		return nil, err
	}
	var out []CRL
	for id, ca := range issuers {
		if keys[id] == "" {
			continue
		}
		resp, err := c.Read(ctx, mount+"/issuer/"+id+"/crl", nil)
		if issuerGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, CRL{ca, []byte(text(resp, "crl"))})
	}
	return out, nil
}

// text is a field of an answer, "" if it is not there.
func text(resp *Response, field string) string {
	if resp == nil {
		return ""
	}
	value, _ := resp.Data[field].(string)
	return value
}
