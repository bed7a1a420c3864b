package tlsconfig

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxCRL bounds what is read of one answer: some 400,000 revoked certificates.
const maxCRL = 16 << 20

// A CRLFetch returns one or more CRLs, in DER or PEM. PEM may hold certificates
// too: of authorities between a root and the peers, so that their lists can be
// verified. They are believed as far as they lead to the bundle.
type CRLFetch func(ctx context.Context) ([]byte, error)

// FetchURL returns a CRLFetch that gets url, such as Vault's pki/crl. A CRL is
// signed, so that plain HTTP is good enough for it. A nil client gets one with
// a timeout of ten seconds that follows no proxy from the environment.
func FetchURL(client *http.Client, url string) CRLFetch {
	if client == nil {
		client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	}
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("the CRL's address: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("get the CRL: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("get the CRL from %s: status %d; is it the right path?", url, resp.StatusCode)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxCRL+1))
		if err != nil {
			return nil, fmt.Errorf("read the CRL from %s: %w", url, err)
		}
		if len(body) > maxCRL {
			return nil, fmt.Errorf("the CRL at %s is larger than %d MiB; have the PKI tidied", url, maxCRL>>20)
		}
		return body, nil
	}
}

// A RevocationConfig says where CRLs come from and how strict to be.
type RevocationConfig struct {
	// Identity has the bundle whose authorities sign the CRLs. Required. An
	// authority between the root and the peers signs with its own key: it must
	// be in the bundle, in the identity's own chain, or come with its list.
	Identity Identity
	// Fetch are the places to get CRLs from. At least one is required.
	Fetch []CRLFetch
	// Interval is the time between fetches; zero means five minutes. It is also
	// the longest time that a revocation goes unnoticed. A peer of an authority
	// without a list has them fetched sooner, after a twentieth of it.
	Interval time.Duration
	// Soft accepts a peer although there is no current CRL of an authority in
	// its chain. The zero value refuses it: then every authority of a chain,
	// the root too, needs a CRL.
	Soft bool

	Logger *slog.Logger     // nil discards
	Now    func() time.Time // the wall clock; nil means time.Now
}

// A Revocation keeps CRLs fresh. A nil Revocation revokes nothing.
type Revocation struct {
	cfg    RevocationConfig
	lists  atomic.Pointer[crlSet]
	status atomic.Pointer[error]
	ctx    context.Context // ends when it is closed
	stop   context.CancelFunc
	done   sync.WaitGroup
	one    sync.Mutex    // a Refresh at a time
	missed chan struct{} // a peer was refused for want of a list
}

// A crlSet is what is known at one time. It does not change.
type crlSet struct {
	version  uint64
	replaced chan struct{}
	lists    []*crl
}

// A crl is the newest list of one authority, by its key.
type crl struct {
	signer  *x509.Certificate
	list    *x509.RevocationList
	revoked map[string]bool // serial numbers
}

// OpenRevocation fetches the CRLs and keeps fetching until Close. If the first
// fetch fails, a hard Revocation is not opened at all; a soft one logs it.
func OpenRevocation(ctx context.Context, cfg RevocationConfig) (*Revocation, error) {
	switch {
	case cfg.Identity == nil:
		return nil, errors.New("tlsconfig: RevocationConfig.Identity is nil; CRLs are verified with its bundle")
	case len(cfg.Fetch) == 0:
		return nil, errors.New("tlsconfig: RevocationConfig.Fetch is empty; give FetchURL of each authority's CRL")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Revocation{cfg: cfg, missed: make(chan struct{}, 1)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.lists.Store(&crlSet{replaced: make(chan struct{})})
	material := cfg.Identity.Current()
	if err := r.Refresh(ctx); err != nil && !cfg.Soft {
		return nil, err
	}
	r.done.Go(func() { r.run(material) })
	return r, nil
}

// Close stops the fetching, and waits for it. The lists that are known are
// honoured on.
func (r *Revocation) Close() {
	r.stop()
	r.done.Wait()
}

// Err is why the last fetch failed, nil if it did not.
func (r *Revocation) Err() error {
	if err := r.status.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *Revocation) run(material *Material) {
	last := time.Now()
	due := last.Add(r.cfg.Interval)
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-r.ctx.Done():
			timer.Stop()
			return
		case <-r.missed: // of an authority that is newer than the lists, perhaps
			timer.Stop()
			due = last.Add(r.cfg.Interval / 20)
			continue
		case <-material.Replaced(): // new authorities, perhaps
			timer.Stop()
		case <-timer.C:
		}
		material = r.cfg.Identity.Current()
		_ = r.Refresh(r.ctx) // it is logged, and kept for Err
		last = time.Now()
		due = last.Add(r.cfg.Interval)
	}
}

// Refresh fetches now. What came well is used although another place failed.
func (r *Revocation) Refresh(ctx context.Context) error {
	r.one.Lock()
	defer r.one.Unlock()
	before := r.lists.Load()
	next := &crlSet{version: before.version, replaced: make(chan struct{}), lists: append([]*crl(nil), before.lists...)}
	var failures []error
	changed := false
	for _, fetch := range r.cfg.Fetch {
		text, err := fetch(ctx)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		lists, authorities, err := parseCRLs(text)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, list := range lists {
			added, err := r.add(next, list, authorities)
			if err != nil {
				failures = append(failures, err)
			}
			changed = changed || added
		}
	}
	if changed {
		next.version++
		r.lists.Store(next)
		close(before.replaced)
	}
	err := errors.Join(failures...)
	if err != nil {
		err = fmt.Errorf("tlsconfig: %w", err)
		r.cfg.Logger.Error("CRLs could not be renewed", slog.Any("error", err), slog.Bool("soft", r.cfg.Soft))
	}
	r.status.Store(&err)
	return err
}

// add takes a list into the set if its signature holds and it is newer than
// the one that is there. The authorities are those that came with it.
func (r *Revocation) add(set *crlSet, list *x509.RevocationList, authorities []*x509.Certificate) (bool, error) {
	signer := signerOf(list, r.cfg.Identity.Current(), authorities, r.cfg.Now())
	if signer == nil {
		return false, fmt.Errorf("a CRL of %q is signed by nobody in the trust bundle; add the authority, or leave its CRL out", list.Issuer)
	}
	now := r.cfg.Now()
	const skew = time.Minute
	switch {
	case list.ThisUpdate.After(now.Add(skew)):
		return false, fmt.Errorf("the CRL of %q is of the future (%s); compare the clocks", list.Issuer, list.ThisUpdate.UTC().Format(time.RFC3339))
	case !now.Before(list.NextUpdate):
		return false, fmt.Errorf("the CRL of %q ended at %s; have it rebuilt", list.Issuer, list.NextUpdate.UTC().Format(time.RFC3339))
	}
	fresh := &crl{signer: signer, list: list, revoked: map[string]bool{}}
	for _, entry := range list.RevokedCertificateEntries {
		fresh.revoked[entry.SerialNumber.String()] = true
	}
	for i, have := range set.lists {
		if !sameKey(have.signer, signer) {
			continue
		}
		// A PKI that was restored counts from lower: it is believed when the
		// list from before has ended.
		switch order := age(have.list, list); {
		case bytes.Equal(have.list.Raw, list.Raw):
			return false, nil
		case order > 0 && (now.Before(have.list.NextUpdate) || !list.ThisUpdate.After(have.list.ThisUpdate)):
			return false, fmt.Errorf("the CRL of %q is older than the one before (number %v after %v); somebody replays it, or the PKI was restored from a backup", list.Issuer, list.Number, have.list.Number)
		}
		set.lists[i] = fresh
		return true, nil
	}
	set.lists = append(set.lists, fresh)
	return true, nil
}

// age compares the ages of two lists: > 0 if the second is older.
func age(before, after *x509.RevocationList) int {
	if before.Number != nil && after.Number != nil {
		if order := before.Number.Cmp(after.Number); order != 0 {
			return order
		}
	}
	return before.ThisUpdate.Compare(after.ThisUpdate)
}

// signerOf finds the authority that signed list, by its name and its key: one of
// the bundle, or one that leads to the bundle of the identity's own chain and of
// those beside the list.
func signerOf(list *x509.RevocationList, m *Material, beside []*x509.Certificate, now time.Time) *x509.Certificate {
	// CheckSignatureFrom does not look at the name, and keys are shared where an
	// authority was renamed.
	signed := func(ca *x509.Certificate) bool {
		return bytes.Equal(list.RawIssuer, ca.RawSubject) && list.CheckSignatureFrom(ca) == nil
	}
	for _, ca := range m.bundle {
		if signed(ca) {
			return ca
		}
	}
	between := slices.Concat(m.between, beside)
	for _, ca := range between {
		if !signed(ca) {
			continue
		}
		if _, err := verifyChain(append([]*x509.Certificate{ca}, between...), m.roots, now, x509.ExtKeyUsageAny); err == nil {
			return ca
		}
	}
	return nil
}

func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo) && bytes.Equal(a.RawSubject, b.RawSubject)
}

// ParseCRLs reads CRLs: one in DER, or any number in PEM, certificates between
// them being passed over. Lists that this package would misunderstand are
// refused: those without an end, deltas, and others with a critical extension.
func ParseCRLs(text []byte) ([]*x509.RevocationList, error) {
	lists, _, err := parseCRLs(text)
	return lists, err
}

func parseCRLs(text []byte) (lists []*x509.RevocationList, certs []*x509.Certificate, err error) {
	ders := [][]byte{text}
	if bytes.Contains(text, []byte("-----BEGIN ")) {
		blocks, err := pemBlocks(text)
		if err != nil {
			return nil, nil, fmt.Errorf("the CRL: %w", err)
		}
		ders = nil
		for _, block := range blocks {
			switch block.Type {
			case "X509 CRL":
				ders = append(ders, block.Bytes)
			case "CERTIFICATE":
				c, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					return nil, nil, fmt.Errorf("a certificate beside the CRL does not parse: %w", err)
				}
				certs = append(certs, c)
			default:
				return nil, nil, fmt.Errorf("a PEM block of type %q where a CRL belongs; is it the right address?", block.Type)
			}
		}
		if len(ders) == 0 {
			return nil, nil, errors.New("only certificates where a CRL belongs; is it the right address?")
		}
	}
	for _, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, nil, fmt.Errorf("the CRL does not parse: %w; is it the right address?", err)
		}
		if list.NextUpdate.IsZero() {
			return nil, nil, fmt.Errorf("the CRL of %q has no nextUpdate; RFC 5280 requires it", list.Issuer)
		}
		for _, ext := range list.Extensions {
			if ext.Critical {
				return nil, nil, fmt.Errorf("the CRL of %q has the critical extension %v, as deltas and partial lists do; give the complete CRL", list.Issuer, ext.Id)
			}
		}
		lists = append(lists, list)
	}
	return lists, certs, nil
}

func (r *Revocation) version() uint64 {
	if r == nil {
		return 0
	}
	return r.lists.Load().version
}

// changed returns a channel that is closed when there are newer lists, nil
// (which blocks) for a nil Revocation.
func (r *Revocation) changed() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.lists.Load().replaced
}

// judge returns from when until when a peer's chains hold: the time in which
// all certificates of one of them are valid and, if lists are required,
// current. What is revoked in any chain is refused, also if another chain
// passes it by.
func (r *Revocation) judge(chains [][]*x509.Certificate, now time.Time) (window, error) {
	var found window
	var missing error
	for _, chain := range chains {
		w, err := r.chain(chain, now)
		switch {
		case err == nil && w.until.After(found.until):
			found = w
		case err != nil && reasonOf(err) == ReasonRevoked:
			return window{}, err
		case err != nil:
			missing = err
		}
	}
	if found.until.IsZero() {
		return window{}, missing
	}
	return found, nil
}

func (r *Revocation) chain(chain []*x509.Certificate, now time.Time) (window, error) {
	from, until := chain[0].NotBefore, chain[0].NotAfter
	for i, c := range chain {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
		if r == nil || i == len(chain)-1 {
			continue // nobody revokes a root: it is taken out of the bundle
		}
		list := r.lists.Load().of(chain[i+1])
		if list != nil && list.revoked[c.SerialNumber.String()] {
			return window{}, refuse(ReasonRevoked, chain[0], "%s is revoked by the CRL of %q; issue it a new certificate if it may come back", describe(c), list.list.Issuer)
		}
		if r.cfg.Soft {
			continue
		}
		if list == nil || !now.Before(list.list.NextUpdate) {
			select {
			case r.missed <- struct{}{}:
			default:
			}
			return window{}, refuse(ReasonNoCRL, chain[0], "there is no current CRL of %q, and Revocation is hard; see Revocation.Err for why, and let the CRL be fetched", chain[i+1].Subject)
		}
		if list.list.NextUpdate.Before(until) {
			until = list.list.NextUpdate
		}
	}
	return window{from, until}, nil
}

func (s *crlSet) of(issuer *x509.Certificate) *crl {
	for _, list := range s.lists {
		if sameKey(list.signer, issuer) {
			return list
		}
	}
	return nil
}
