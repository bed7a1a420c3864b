package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

// clientSigner makes the certificate of a service that peers are asked with:
// below the new root, or as those that are in use.
type clientSigner func(ctx context.Context, name string, fresh bool) (tlsconfig.Identity, error)

// signerOf has Vault sign each certificate once, however many endpoints are
// asked with it.
func signerOf(sign func(ctx context.Context, name string, fresh bool) (*vault.Certificate, error)) clientSigner {
	type which struct {
		name  string
		fresh bool
	}
	var mu sync.Mutex
	made := map[which]func() (tlsconfig.Identity, error){}
	return func(ctx context.Context, name string, fresh bool) (tlsconfig.Identity, error) {
		mu.Lock()
		one := made[which{name, fresh}]
		if one == nil {
			one = sync.OnceValues(func() (tlsconfig.Identity, error) {
				cert, err := sign(ctx, name, fresh)
				if err != nil {
					return nil, err
				}
				m, err := tlsconfig.ParseMaterial(slices.Concat(cert.Leaf, cert.Chain), cert.Key.Bytes(), cert.CA)
				if err != nil {
					return nil, fmt.Errorf("the certificate of %s: %w", name, err)
				}
				return tlsconfig.Static(m), nil
			})
			made[which{name, fresh}] = one
		}
		mu.Unlock()
		return one()
	}
}

// trusting is what an endpoint answers to the question whether it trusts the
// new root.
type trusting int

const (
	trusts trusting = iota
	trustsNot
	cannotTell // why says the reason
	cannotSee  // there is no connection to it
)

// endpointsTrust asks endpoints whether they trust the new root. It returns
// those for which re-issue must wait, each with the reason, and those that
// cannot be asked and need not.
func endpointsTrust(ctx context.Context, endpoints []rollEndpoint, sign clientSigner) (behind, unseen []string, err error) {
	found, why := make([]trusting, len(endpoints)), make([]string, len(endpoints))
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(lookers)
	for i, e := range endpoints {
		group.Go(func() (err error) {
			found[i], why[i], err = e.trustsAll(asking, sign)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for i, e := range endpoints {
		switch {
		case found[i] == trustsNot:
			behind = append(behind, fmt.Sprintf("%s does not trust the new root: %s; see whether it has read its bundle again, and where it requires CRLs the new ones", e.name, why[i]))
		case found[i] == cannotSee && e.must:
			behind = append(behind, fmt.Sprintf("%s cannot be looked at: %s", e.name, why[i]))
		case found[i] == cannotTell && e.must:
			behind = append(behind, fmt.Sprintf("whether %s trusts the new root cannot be told: %s", e.name, why[i]))
		case found[i] == cannotSee:
			unseen = append(unseen, e.name)
		case found[i] == cannotTell:
			unseen = append(unseen, fmt.Sprintf("%s (%s)", e.name, why[i]))
		}
	}
	return behind, unseen, nil
}

// trustsAll asks each of the replicas. One that is down is no peer, unless all
// are.
func (e rollEndpoint) trustsAll(ctx context.Context, sign clientSigner) (found trusting, why string, err error) {
	found = cannotSee
	for _, r := range e.replicas(ctx) {
		one, says, err := r.trusts(ctx, sign)
		if err != nil {
			return 0, "", err
		}
		if r.addr != e.addr && says != "" {
			says = "at " + r.addr + " " + says
		}
		switch {
		case one == trustsNot:
			return one, says, nil
		case found == cannotSee || one == cannotTell:
			found, why = one, says
		}
	}
	return found, why, nil
}

// trusts asks as each of those that may call the endpoint, until one is let in.
// That one with the new root is refused says nothing by itself: the same with
// the authority that is in use must be let in.
func (e rollEndpoint) trusts(ctx context.Context, sign clientSigner) (trusting, string, error) {
	if _, err := e.shown(ctx); err != nil { // nothing need be signed for it
		if ctx.Err() != nil {
			return 0, "", ctx.Err()
		}
		return cannotSee, fmt.Sprintf("%q", err), nil
	}
	why := "nobody in the estate has a certificate to ask it with"
	for _, caller := range e.callers {
		fresh, err := e.try(ctx, sign, caller, true)
		if err != nil {
			return goneMeanwhile(err)
		}
		switch fresh.Result {
		case tlsconfig.TrialAccepted, tlsconfig.TrialOpen:
			return trusts, "", nil
		case tlsconfig.TrialUntrusted:
			return trustsNot, fmt.Sprintf("it refuses %s's certificate below it: %s", caller, fresh.Why), nil
		}
		now, err := e.try(ctx, sign, caller, false)
		if err != nil {
			return goneMeanwhile(err)
		}
		if now.Result == tlsconfig.TrialAccepted {
			return trustsNot, fmt.Sprintf("it accepts %s's certificate of today, and not one below the new root: %s", caller, fresh.Why), nil
		}
		why = fmt.Sprintf("it refuses certificates of today as well, last that of %s: %s", caller, now.Why)
	}
	return cannotTell, why, nil
}

func (e rollEndpoint) try(ctx context.Context, sign clientSigner, caller string, fresh bool) (*tlsconfig.Trial, error) {
	client, err := sign(ctx, caller, fresh)
	if err != nil {
		return nil, err
	}
	return tlsconfig.Try(ctx, tlsconfig.Endpoint{Addr: e.addr, Protocol: e.protocol, Identity: []string{e.server}, Logins: e.logins},
		tlsconfig.ProbeConfig{Client: client, Timeout: lookTime})
}

// goneMeanwhile makes an endpoint that is gone meanwhile no error.
func goneMeanwhile(err error) (trusting, string, error) {
	if errors.Is(err, tlsconfig.ErrUnreachable) {
		return cannotSee, fmt.Sprintf("%q", err), nil
	}
	return 0, "", err
}

// agentTrust is what an agent answers to /trust.
type agentTrust struct {
	Roots []struct{ SHA256 string }
}

// agentsBehind asks agents whether what they carry trusts all of roots, and
// returns those that do not, or do not say. Of whom its programs call, an
// endpoint tells nothing.
func agentsBehind(ctx context.Context, agents []string, roots []*x509.Certificate) (behind []string) {
	for _, at := range agents {
		var has agentTrust
		bounded, cancel := context.WithTimeout(ctx, lookTime)
		err := askAgent(bounded, at, "/trust", &has)
		cancel()
		if err != nil {
			behind = append(behind, err.Error())
			continue
		}
		for _, r := range roots {
			sum := sha256.Sum256(r.Raw)
			if !slices.ContainsFunc(has.Roots, func(have struct{ SHA256 string }) bool { return have.SHA256 == hex.EncodeToString(sum[:]) }) {
				behind = append(behind, fmt.Sprintf("the agent at %s does not trust %q; see in its log whether it can reach Vault", at, r.Subject.CommonName))
			}
		}
	}
	return behind
}

// callersOf are the services and servers with a certificate of their own that
// call the endpoint; all of them, if the estate knows none that does.
func callersOf(estate *provision.Estate, endpoint string) []string {
	var callers, all []string
	add := func(name string, p provision.Place) {
		if _, err := estate.CertRole(name); err != nil {
			return
		}
		all = append(all, name)
		if slices.Contains(p.Calls, endpoint) {
			callers = append(callers, name)
		}
	}
	for _, s := range estate.Services {
		add(s.Name, s.Place)
	}
	for _, s := range estate.Servers {
		add(s.Name, s.Place)
	}
	if len(callers) == 0 {
		return all
	}
	return callers
}
