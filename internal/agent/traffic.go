package agent

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/agent/tune"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Identity is the certificate with which the agent speaks for the program.
type Identity struct {
	Role  string        // of Vault's PKI: "pki/sign/mcp-hr"; "" means none
	Names []string      // DNS names, and URIs like spiffe://…; none means the service's name
	TTL   time.Duration // 0 means as the role says
	Roots string        // the mount with the roots, if not the role's: "pki-root"
	// CRL says what to do about revoked peers: "prefer" (or "") refuses them
	// where there is a current CRL, "require" refuses also where there is none,
	// "off" looks at none.
	CRL string
}

const (
	crlPrefer  = "prefer"
	crlRequire = "require"
	crlOff     = "off"
)

// checkTraffic looks at what is listened for, and at the identity for it.
func (c *Config) checkTraffic() error {
	id := &c.Identity
	switch {
	case id.Role == "" && (len(id.Names) > 0 || id.TTL != 0 || id.Roots != "" || id.CRL != ""):
		return usage("the identity has no role: name one of Vault's PKI, like pki/sign/mcp-hr")
	case id.Role == "" && c.Sidecar.Configured():
		return usage("there is no identity to speak mutual TLS with: name a role of Vault's PKI with -identity, like pki/sign/mcp-hr")
	case c.Once && c.Sidecar.Configured():
		return usage("-once writes files and ends; it listens for nothing")
	case id.CRL != "" && id.CRL != crlPrefer && id.CRL != crlRequire && id.CRL != crlOff:
		return usage("the identity's crl is %q; there are prefer, require and off", id.CRL)
	}
	if err := c.Sidecar.Check(); err != nil {
		return usage("%w", err)
	}
	if ref := c.Sidecar.Users.Secret; ref != "" {
		if _, err := secrets.ParseRef(ref); err != nil {
			return usage("users: secret: %w", err)
		}
	}
	return nil
}

// rootsMount is the mount with the roots that it trusts.
func (id *Identity) rootsMount() string {
	if id.Roots != "" {
		return id.Roots
	}
	role := strings.Split(id.Role, "/")
	return strings.Join(role[:max(0, len(role)-2)], "/")
}

// request is what the session asks Vault for; nil without a role.
func (id *Identity) request(service string) (*bootstrap.CertRequest, error) {
	if id.Role == "" {
		return nil, nil
	}
	r := &bootstrap.CertRequest{Name: "identity", Role: id.Role, TTL: id.TTL}
	for _, name := range id.Names {
		if !strings.Contains(name, "://") {
			r.DNSNames = append(r.DNSNames, name)
			continue
		}
		u, err := url.Parse(name)
		if err != nil {
			return nil, usage("the identity's name %q is no URI", name)
		}
		r.URIs = append(r.URIs, u)
	}
	if len(r.DNSNames) == 0 {
		r.DNSNames = []string{service} // roles want a common name, and give it to hosts alone
	}
	r.CommonName = r.DNSNames[0]
	return r, nil
}

// startSidecar takes traffic, if any is asked for. What it returns to stop it
// is to be called in any case.
func startSidecar(cfg *Config, session *bootstrap.Session) (sc *sidecar.Sidecar, stop func(), err error) {
	stop = func() {}
	if !cfg.Sidecar.Configured() {
		return nil, stop, nil
	}
	host := sidecar.Host{Identity: session.Identity(), Drain: cfg.Boot.Drain, Audit: cfg.Boot.Audit, Logger: cfg.Logger,
		UIDs: append([]uint32{uint32(os.Geteuid())}, cfg.Sidecar.UIDs...),
	}
	if ref := cfg.Sidecar.Users.Secret; ref != "" {
		if host.Secret, err = session.Secret(ref); err != nil {
			return nil, stop, err
		}
	}
	if cfg.Identity.CRL != crlOff {
		ctx, cancel := context.WithTimeout(context.Background(), crlTime)
		defer cancel()
		host.Revocation, err = tlsconfig.OpenRevocation(ctx, tlsconfig.RevocationConfig{
			Identity: session.Identity(), Fetch: session.CRLs(), Soft: cfg.Identity.CRL != crlRequire, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, stop, fmt.Errorf("the CRLs that identity.crl requires cannot be had: %w", err)
		}
		stop = host.Revocation.Close
	}
	sc, err = sidecar.Start(cfg.Sidecar, host)
	if err != nil {
		stop()
		return nil, func() {}, err
	}
	closeCRLs, untune := stop, tune.Sidecar(sc.Requests)
	return sc, func() {
		defer untune()
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		sc.Close(ctx)
		closeCRLs()
	}, nil
}

// crlTime bounds the first look at the CRLs.
const crlTime = 15 * time.Second

// addIdentity reads "ROLE,NAME,…".
func (c *Config) addIdentity(s string) error {
	role, names, more := strings.Cut(s, ",")
	c.Identity.Role = role
	if more {
		c.Identity.Names = strings.Split(names, ",")
	}
	return nil
}

// addServe reads "AT=TO,peer=NAME,peer=NAME:MODE,…".
func (c *Config) addServe(s string) error {
	at, to, peers, err := route(s)
	if err != nil {
		return err
	}
	in := sidecar.Inbound{At: at, To: to, Peers: map[string]sidecar.Peer{}}
	for _, name := range peers {
		var p sidecar.Peer
		for _, mode := range []sidecar.Mode{sidecar.Strict, sidecar.Permissive, sidecar.Report} {
			if cut, ok := strings.CutSuffix(name, ":"+string(mode)); ok {
				name, p.Mode = cut, mode
			}
		}
		if cut, mode, ok := strings.Cut(name, ":"); ok && !strings.HasPrefix(mode, "//") {
			name, p.Mode = cut, sidecar.Mode(mode) // which is none
		}
		in.Peers[name] = p
	}
	c.Sidecar.Serve = append(c.Sidecar.Serve, in)
	return nil
}

// addCall reads "AT=TO,peer=NAME".
func (c *Config) addCall(s string) error {
	at, to, peers, err := route(s)
	if err != nil {
		return err
	}
	if len(peers) != 1 {
		return errors.New("one peer is called at one place")
	}
	c.Sidecar.Call = append(c.Sidecar.Call, sidecar.Call{At: at, To: to, Peer: peers[0]})
	return nil
}

// addTunnel reads "AT=TO,peer=NAME".
func (c *Config) addTunnel(s string) error {
	at, to, peers, err := route(s)
	if err != nil {
		return err
	}
	if len(peers) != 1 {
		return errors.New("one peer is at one place")
	}
	c.Sidecar.Tunnel = append(c.Sidecar.Tunnel, sidecar.Tunnel{At: at, To: to, Peer: peers[0]})
	return nil
}

func route(s string) (at, to string, peers []string, err error) {
	words := strings.Split(s, ",")
	at, to, ok := strings.Cut(words[0], "=")
	for _, word := range words[1:] {
		name, found := strings.CutPrefix(word, "peer=")
		ok = ok && found
		peers = append(peers, name)
	}
	if !ok || len(peers) == 0 {
		return "", "", nil, errors.New("write it as AT=TO,peer=NAME")
	}
	return at, to, peers, nil
}
