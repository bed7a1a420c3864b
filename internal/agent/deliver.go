package agent

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/render"
	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// always are the variables that every child gets, if the agent has them: what
// programs need to find their way about, and none of what people put secrets
// in.
var always = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "HOSTNAME", "TMPDIR"}

// passed returns what a child, or a hook, gets of the agent's environment.
func passed(environ, patterns []string) []string {
	var out []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if reserved(name) {
			continue
		}
		for _, pattern := range slices.Concat(always, patterns) {
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			if name == pattern || isPrefix && strings.HasPrefix(name, prefix) {
				out = append(out, entry)
				break
			}
		}
	}
	return out
}

// environment makes the child's environment. What it makes is secret, so that
// it is called within secmem.Do.
func (p *plan) environment(src render.Source, base []string) ([]string, error) {
	var env []string
	for _, entry := range base {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(p.env, func(v variable) bool { return v.name == name }) {
			env = append(env, entry)
		}
	}
	for _, v := range p.env {
		out, err := v.tmpl.Render(src)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.name, err)
		}
		entry := out.AppendTo([]byte(v.name + "="))
		if bytes.IndexByte(entry, 0) >= 0 {
			return nil, fmt.Errorf("the value for the variable %s holds a zero byte, which no variable can; hand it over in a file", v.name)
		}
		env = append(env, string(entry))
	}
	return env, nil
}

// write writes the files that use one of refs, all of them if refs is nil. It
// tries them all.
func (p *plan) write(src render.Source, refs []string) (written int, err error) {
	var problems []error
	for _, f := range p.files {
		if refs != nil && !uses(f.tmpl, refs) {
			continue
		}
		out, err := f.tmpl.Render(src)
		if err != nil {
			problems = append(problems, fmt.Errorf("file %s: %w", f.Path, err))
			continue
		}
		secmem.Do(func() { err = f.target.Write(out.AppendTo(nil)) })
		if err != nil {
			problems = append(problems, err)
			continue
		}
		written++
	}
	return written, errors.Join(problems...)
}

// holdings are the leases that the child lives on, and those that have taken
// their place.
type holdings struct {
	session *bootstrap.Session
	changed func(ref string)
	wg      sync.WaitGroup
	stop    context.CancelFunc

	mu      sync.Mutex
	current map[string]*secrets.Lease
	held    map[*secrets.Lease]func()
}

// hold takes every lease that is needed and follows them until close. changed
// is told of each that has been replaced.
func hold(ctx context.Context, session *bootstrap.Session, needs render.Needs, changed func(ref string)) (*holdings, error) {
	h := &holdings{session: session, changed: changed, current: map[string]*secrets.Lease{}, held: map[*secrets.Lease]func(){}}
	ctx, h.stop = context.WithCancel(ctx)
	for _, ref := range needs.Leases {
		replaced, err := h.take(ctx, ref)
		if err != nil {
			h.close()
			return nil, err
		}
		h.wg.Go(func() { h.follow(ctx, ref, replaced) })
	}
	for _, c := range needs.Certs {
		_, replaced, err := session.Cert(c.String()).Current()
		if err != nil {
			h.close()
			return nil, err
		}
		h.wg.Go(func() { h.followCert(ctx, c.String(), replaced) })
	}
	for _, mount := range needs.Roots { // one at most
		_, replaced := session.Roots()
		h.wg.Go(func() { h.followRoots(ctx, mount, replaced) })
	}
	return h, nil
}

// followRoots tells of other roots.
func (h *holdings) followRoots(ctx context.Context, mount string, replaced <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-replaced:
		}
		_, replaced = h.session.Roots()
		h.changed(mount)
	}
}

// followCert tells of each renewal of a certificate.
func (h *holdings) followCert(ctx context.Context, name string, replaced <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-replaced:
		}
		for {
			var err error
			if _, replaced, err = h.session.Cert(name).Current(); err == nil {
				break
			}
			if errors.Is(err, bootstrap.ErrClosed) || !pause(ctx, leaseRetry) {
				return
			}
		}
		h.changed(name)
	}
}

func (h *holdings) take(ctx context.Context, ref string) (<-chan struct{}, error) {
	lease, release, replaced, err := h.session.Leases(ref).Current(ctx)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[lease] != nil {
		release()
		return replaced, nil
	}
	h.current[ref], h.held[lease] = lease, release
	return replaced, nil
}

// leaseRetry is the time between two looks at a lease that has expired.
const leaseRetry = 5 * time.Second

func (h *holdings) follow(ctx context.Context, ref string, replaced <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-replaced:
		}
		for {
			var err error
			if replaced, err = h.take(ctx, ref); err == nil {
				break
			}
			if errors.Is(err, secrets.ErrLeaseClosed) || !pause(ctx, leaseRetry) {
				return
			}
		}
		h.changed(ref)
	}
}

// pause waits for d, and reports false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// now returns the newest leases, for a child that is about to be started.
func (h *holdings) now() map[string]*secrets.Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.current)
}

// settle lets go of every lease that is neither the newest nor one that the
// child was started with.
func (h *holdings) settle(using map[string]*secrets.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for lease, release := range h.held {
		if lease != h.current[lease.Ref()] && lease != using[lease.Ref()] {
			release()
			delete(h.held, lease)
		}
	}
}

func (h *holdings) close() {
	h.stop()
	h.wg.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, release := range h.held {
		release()
	}
	clear(h.held)
}

// view is one moment of the session: what is rendered together fits together.
type view struct {
	session *bootstrap.Session
	leases  map[string]*secrets.Lease
}

func (v view) Secret(ref string) (secrets.Secret, error) { return v.session.Secret(ref) }

func (v view) Lease(ref string) (*secrets.Lease, error) {
	if lease := v.leases[ref]; lease != nil {
		return lease, nil
	}
	return nil, fmt.Errorf("there is no lease %s", ref)
}

func (v view) Cert(c render.Cert) (render.Certificate, error) {
	cert, _, err := v.session.Cert(c.String()).Current()
	if err != nil {
		return render.Certificate{}, err
	}
	return render.Certificate{Cert: cert.Leaf, Chain: cert.Chain, CA: cert.CA, Key: cert.Key, NotAfter: cert.NotAfter}, nil
}

func (v view) Roots(string) (text []byte, _ error) {
	roots, _ := v.session.Roots()
	for _, c := range roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text, nil
}

// certRequests are what the templates need, as the session is asked for it.
func certRequests(certs []render.Cert) []bootstrap.CertRequest {
	var out []bootstrap.CertRequest
	for _, c := range certs {
		req := bootstrap.CertRequest{Name: c.String(), Role: c.Role, TTL: c.TTL}
		for i, name := range c.Names {
			if ip := net.ParseIP(name); ip != nil {
				req.IPs = append(req.IPs, ip)
			} else {
				req.DNSNames = append(req.DNSNames, name)
			}
			if i == 0 {
				req.CommonName = name
			}
		}
		out = append(out, req)
	}
	return out
}

// standard are the child's input and outputs: the agent's own.
func standard() [3]*os.File { return [3]*os.File{os.Stdin, os.Stdout, os.Stderr} }
