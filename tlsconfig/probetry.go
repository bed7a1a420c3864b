package tlsconfig

import (
	"context"
	"crypto/x509"
	"fmt"
)

// A Trial is what became of one client at an endpoint.
type Trial struct {
	Result TrialResult
	Chain  []*x509.Certificate // what the endpoint showed, not verified; nil: nothing
	Why    string              // what it said, or did not; escaped
}

// A TrialResult is the outcome of a Trial.
type TrialResult string

// The results.
const (
	TrialAccepted  TrialResult = "accepted"  // the client is served
	TrialOpen      TrialResult = "open"      // it asks clients for no certificate, so that it trusts no authority for them
	TrialUntrusted TrialResult = "untrusted" // refused, because it knows no authority of the client's: it said so (unknown_ca, RFC 8446, section 6.2)
	TrialRefused   TrialResult = "refused"   // refused, for a reason that it keeps to itself
	TrialUnclear   TrialResult = "unclear"   // there is no TLS, or no answer in time
)

// Try connects to e as the client of c and asks to be served, on three
// connections. Whether e is who it should be does not matter here: see Probe.
//
// Most servers do not say why they refuse a client. Whether they trust an
// authority is seen from two clients of the same names, one of that authority
// and one of another.
//
// The error is ErrUnreachable, the context's, or says what is wrong with e or c.
func Try(ctx context.Context, e Endpoint, c ProbeConfig) (*Trial, error) {
	if c.Client == nil {
		return nil, fmt.Errorf("tlsconfig: trying a client at %q: ProbeConfig.Client is nil; give the certificate to try", e.Addr)
	}
	p, err := newProbe(e, c)
	if err != nil {
		return nil, err
	}
	t := &Trial{Result: TrialUnclear}
	seen, err := p.meet(ctx)
	if err == nil && seen.state == nil {
		t.Why = seen.why
	} else if err == nil {
		t.Chain = seen.state.PeerCertificates
		err = p.try(ctx, t)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("tlsconfig: trying a client at %s: %w", e.Addr, ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (p *probe) try(ctx context.Context, t *Trial) error {
	a, err := p.admit(ctx, p.own)
	if err != nil {
		return err
	}
	t.Why = a.text
	switch {
	case a.open:
		t.Result = TrialOpen
	case a.outcome == served:
		t.Result = TrialAccepted
	case a.outcome == stranger:
		t.Result = TrialUntrusted
	case a.outcome != silent:
		t.Result = TrialRefused
	}
	return nil
}
