package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/vaulttest"
)

//go:embed estate.yaml
var estateYAML []byte

// A site is what in production is a machine with containers: a Vault that is
// provisioned, and services that boot from the SecretIDs issued for them. Here
// they are goroutines, and a map stands for DNS.
type site struct {
	vault interface {
		Addr() string
		CACertPEM() []byte
		RootToken() string
		Close() error
	}
	estate *provision.Estate
	dir    string // of SecretIDs
	life   time.Duration
	log    *slog.Logger
	audit  auditlog.Recorder

	mu       sync.Mutex
	places   map[string]string // service -> address
	services sync.WaitGroup
	stop     context.CancelFunc
	errs     []error
}

// siteConfig is how a site is built. Its zero value is on the double of Vault.
type siteConfig struct {
	real  bool          // on real Vault
	life  time.Duration // of certificates; zero: as the estate says
	log   *slog.Logger
	audit auditlog.Recorder
}

// build starts a Vault and provisions it.
func build(ctx context.Context, cfg siteConfig) (s *site, err error) {
	s = &site{places: map[string]string{}, life: cfg.life, log: cfg.log, audit: cfg.audit}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.dir, err = os.MkdirTemp("", "mcp-example-"); err != nil {
		return s, err
	}
	if s.estate, err = provision.Load("estate.yaml", estateYAML); err != nil {
		return s, err
	}
	if cfg.real {
		s.vault, err = realvault.Start(ctx, realvault.Config{Mode: realvault.File})
	} else {
		s.vault, err = vaulttest.Start(vaulttest.Config{TLS: true})
	}
	if err != nil {
		return s, err
	}
	client, err := s.operator()
	if err != nil {
		return s, err
	}
	defer client.Close()
	plan, err := provision.NewPlan(ctx, client, s.estate, provision.PlanConfig{})
	if err != nil {
		return s, err
	}
	_, err = plan.Apply(ctx, provision.ApplyConfig{})
	return s, err
}

func (s *site) operator() (*vault.Client, error) {
	client, err := vault.New(vault.Config{Addr: s.vault.Addr(), CACertPEM: s.vault.CACertPEM()})
	if err != nil {
		return nil, err
	}
	return client.WithToken(secrets.NewString(s.vault.RootToken()))
}

// boot says how a service boots: from a SecretID that is issued for it now.
func (s *site) boot(ctx context.Context, name string) (bootstrap.Config, error) {
	client, err := s.operator()
	if err != nil {
		return bootstrap.Config{}, err
	}
	defer client.Close()
	issued, err := provision.Issue(ctx, client, s.estate, []string{name}, provision.IssueConfig{})
	if err != nil {
		return bootstrap.Config{}, err
	}
	data, err := provision.EnvFile(issued)
	if err != nil {
		return bootstrap.Config{}, err
	}
	file := filepath.Join(s.dir, name+".env")
	return bootstrap.Config{
		Addr: s.vault.Addr(), CACertPEM: s.vault.CACertPEM(), SecretIDFile: file, RequireWrapped: true, RequireProof: true,
		Spent: bootstrap.FailWhenSpent, LookupEnv: func(string) (string, bool) { return "", false },
	}, os.WriteFile(file, data, 0o600)
}

// run starts the services, and returns when all of them listen. They run until
// close.
func (s *site) run(ctx context.Context, services ...service) error {
	ctx, s.stop = context.WithCancel(ctx)
	for _, one := range services {
		listen, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.places[one.name] = listen.Addr().String()
		s.mu.Unlock()
		boot, err := s.boot(ctx, one.name)
		if err != nil {
			return errors.Join(err, listen.Close())
		}
		s.services.Go(func() {
			if err := one.run(ctx, environment{boot: boot, life: s.life, listen: listen, dial: s.dial, log: s.log, audit: s.audit}); err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.errs = append(s.errs, fmt.Errorf("%s: %w", one.name, err))
				_ = listen.Close() // so that callers do not wait for it
			}
		})
	}
	return nil
}

// dial finds a service by its name.
func (s *site) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	name, _, _ := strings.Cut(addr, ":")
	s.mu.Lock()
	place, ok := s.places[name]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("there is no service %s", name)
	}
	return new(net.Dialer).DialContext(ctx, network, place)
}

// close ends the services and Vault, and says what failed meanwhile.
func (s *site) close() error {
	if s.stop != nil {
		s.stop()
	}
	s.services.Wait()
	errs := s.errs
	if s.vault != nil {
		errs = append(errs, s.vault.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
