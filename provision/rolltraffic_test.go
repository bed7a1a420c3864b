package provision_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A peer keeps a certificate and trusts the roots that Vault tells everybody
// of, as sessions do, at a pace of its own.
type peer struct {
	*world
	name   string
	client *vault.Client // its token; it needs none for the roots
	live   tlsconfig.Live
	lists  *tlsconfig.Revocation
	mu     sync.Mutex
	cert   *vault.Certificate
}

// crls has the lists of both mounts with their authorities, as sessions do.
func (p *peer) crls(ctx context.Context) ([]byte, error) {
	var out []byte
	for _, mount := range []string{"root-" + p.n, "pki-" + p.n} {
		lists, err := p.client.CRLs(ctx, mount)
		if err != nil {
			return nil, err
		}
		for _, list := range lists {
			out = append(append(out, list.List...), '\n')
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: list.Authority.Raw})...)
		}
	}
	return out, nil
}

func (p *peer) bundle(ctx context.Context) ([]byte, error) {
	ids, err := p.client.List(ctx, "root-"+p.n+"/issuers")
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, id := range ids {
		resp, err := p.client.Read(ctx, "root-"+p.n+"/issuer/"+id+"/json", nil)
		if errors.Is(err, vault.ErrServer) {
			continue // deleted between the two requests
		}
		if err != nil {
			return nil, err
		}
		text, _ := resp.Data["certificate"].(string)
		out = append(out, text...)
	}
	return out, nil
}

// renew is one round: another certificate if it is time, and the bundle.
func (p *peer) renew(ctx context.Context, issue bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if issue {
		cert, err := p.client.IssueCert(ctx, vault.CertRequest{Role: "pki-" + p.n + "/sign/" + p.name, CommonName: p.name, DNSNames: []string{p.name}}, time.Now())
		if err != nil {
			return err
		}
		values.add(cert.Key.Reveal())
		p.cert = cert
	}
	bundle, err := p.bundle(ctx)
	if err != nil {
		return err
	}
	m, err := tlsconfig.ParseMaterial(append(p.cert.Leaf[:len(p.cert.Leaf):len(p.cert.Leaf)], p.cert.Chain...), p.cert.Key.Bytes(), bundle)
	if err != nil {
		return err
	}
	p.live.Publish(m)
	return nil
}

// trusts reports whether its bundle has all of roots, shows whether its own
// certificate leads to one of them.
func (p *peer) trusts(roots []*x509.Certificate) bool {
	bundle := x509.NewCertPool()
	for _, c := range p.live.Current().Bundle() {
		bundle.AddCert(c)
	}
	for _, r := range roots {
		if _, err := r.Verify(x509.VerifyOptions{Roots: bundle, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return false
		}
	}
	return true
}

func (p *peer) shows(roots []*x509.Certificate) bool {
	old, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		old.AddCert(r)
	}
	p.mu.Lock()
	between.AppendCertsFromPEM(p.cert.Chain)
	p.mu.Unlock()
	_, err := p.live.Current().Leaf().Verify(x509.VerifyOptions{Roots: old, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// While three rolls run and both sides renew at a pace of their own, no
// handshake fails, though both require the CRL of every authority.
func TestRollFailsNoHandshake(t *testing.T) {
	w, e := rolling(t)
	w.apply(e, provision.PlanConfig{})
	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()

	var peers []*peer
	for _, name := range []string{w.hr(), w.fin()} {
		p := &peer{world: w, name: name, client: w.as(w.token("phoenix-" + name))}
		if err := p.renew(ctx, true); err != nil {
			t.Fatal(err)
		}
		var err error
		if p.lists, err = tlsconfig.OpenRevocation(ctx, tlsconfig.RevocationConfig{Identity: &p.live, Fetch: []tlsconfig.CRLFetch{p.crls}}); err != nil {
			t.Fatal(err)
		}
		defer p.lists.Close()
		peers = append(peers, p)
	}
	server, client := peers[0], peers[1]
	ln, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.Config{Revocation: server.lists}.Server(&server.live, tlsconfig.AllowDNS(client.name)))
	if err != nil {
		t.Fatal(err)
	}
	workers.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			workers.Go(func() { defer conn.Close(); _, _ = io.Copy(conn, conn) })
		}
	})
	defer ln.Close()
	for i, p := range peers {
		workers.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				if err := p.renew(ctx, round%(3+i) == 0); err != nil && ctx.Err() == nil {
					t.Errorf("%s cannot renew: %v", p.name, err)
				}
				pause(ctx, time.Duration(200+150*i)*time.Millisecond)
			}
		})
	}
	var done, failed atomic.Int64
	for range 2 {
		workers.Go(func() {
			for ctx.Err() == nil {
				if err := talk(ctx, ln.Addr().String(), tlsconfig.Config{Revocation: client.lists}.Client(&client.live, server.name, tlsconfig.AllowDNS(server.name))); err == nil {
					done.Add(1)
				} else if ctx.Err() == nil {
					failed.Add(1)
					t.Errorf("handshake: %v", err)
				}
			}
		})
	}

	cfg := provision.RollConfig{
		Settle: -1, Patience: -1,
		// What the peers have had before has ended by then.
		Now: func() time.Time { return time.Now().Add(13 * time.Hour) },
		Probe: func(_ context.Context, look provision.RollLook) (behind []string, _ error) {
			phase, roots := look.Phase, look.Roots
			for _, p := range peers {
				if phase == provision.RollReissue && p.trusts(roots) { // in life the pause does it
					_ = p.lists.Refresh(ctx) // there may be authorities that are gone from the bundle
				}
				if phase == provision.RollReissue && !p.trusts(roots) || phase == provision.RollRemove && p.shows(roots) {
					behind = append(behind, p.name)
				}
			}
			return behind, nil
		},
	}
	waited := 0
	for range 3 {
		for over := false; !over && !t.Failed(); {
			r, err := provision.Roll(ctx, w.client, e, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if over = r.Phase == provision.RollIdle; !over {
				waited++
				pause(ctx, 5*time.Millisecond)
			}
		}
	}
	stop()
	ln.Close()
	workers.Wait()
	t.Logf("%d handshakes, %d failed, %d times a peer was behind", done.Load(), failed.Load(), waited)
	if done.Load() == 0 {
		t.Error("the roll met no traffic")
	}
	w.wantHolds("root", 1, "root 4*")
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// talk makes a connection and has a byte echoed: in TLS 1.3 a client learns
// with the first answer that it is let in.
func talk(ctx context.Context, addr string, config *tls.Config) error {
	dialer := tls.Dialer{Config: config, NetDialer: &net.Dialer{Timeout: 10 * time.Second}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}
