package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

// cast are the services that boot.
var cast = []string{"mcp-gateway", "mcp-hr", "mcp-finance"}

func (s *stage) freshVault(ctx context.Context) error {
	if err := s.vault.start(ctx); err != nil {
		return err
	}
	s.scrub.Add(s.vault.rootToken())
	s.say("%s answers at %s", s.vault.name(), s.vault.addr())
	return nil
}

func (s *stage) provision(ctx context.Context) error {
	_, first, err := s.apply(ctx)
	if err != nil {
		return err
	}
	s.say("%d services, %d policies, %d secrets: %d changes made", len(s.estate.Services), len(s.estate.Policies), len(s.estate.Secrets), len(first.Done))
	_, again, err := s.apply(ctx)
	if err != nil {
		return err
	}
	if again.Writes != 0 {
		return fmt.Errorf("the second run wrote %d times", again.Writes)
	}
	s.say("once more: %d reads, %d writes, because nothing differs", again.Reads, again.Writes)
	return nil
}

func (s *stage) boot(ctx context.Context) error {
	if err := s.issue(ctx, cast...); err != nil {
		return err
	}
	s.say("issued to %s: wrapped, one use, ten minutes", s.dir)
	if err := s.start(ctx, cast...); err != nil {
		return err
	}
	return s.table()
}

// table is the outcome of a boot, a line for each service.
func (s *stage) table() error {
	s.printf("\n  %-14s%-10s%-28s%s\n", "service", "secrets", "SecretID", "boot")
	for _, name := range cast {
		session := s.sessions[name]
		if err := session.Ready(); err != nil {
			return err
		}
		boot := session.Boot()
		if boot.Proof != bootstrap.ProvenGone {
			return fmt.Errorf("%s: the SecretID is %s", name, boot.Proof)
		}
		if _, err := os.Stat(s.file(name)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: the SecretID's file is still there", name)
		}
		s.printf("  %-14s%-10d%-28s%s\n", name, boot.Secrets, s.paint(green, string(boot.Proof))+"     ", round(boot.Took))
	}
	return nil
}

// refused starts a service that must not come up, and shows why it does not.
func (s *stage) refused(ctx context.Context, service string, want error) error {
	cfg := s.config(service)
	seen := &narrator{stage: s, service: service, quiet: true}
	cfg.Audit = seen
	session, err := bootstrap.Start(ctx, cfg)
	if err == nil {
		return errors.Join(errors.New("the service came up"), session.Close(ctx))
	}
	if !errors.Is(err, want) {
		return fmt.Errorf("refused for another reason: %w", err)
	}
	s.say("%-12s %s", service, s.paint(red, "refused"))
	s.printf("%10s  %s\n", "", err)
	events := seen.security()
	if len(events) == 0 {
		return errors.New("no security event was recorded")
	}
	for _, e := range events {
		s.say("%-12s security event %s: %s, severity %s", service, e.Action, e.Outcome, e.Severity)
	}
	return nil
}

func (s *stage) replay(ctx context.Context) error {
	if err := os.WriteFile(s.file("mcp-hr"), s.spent["mcp-hr"], 0o600); err != nil {
		return err
	}
	s.say("a thief puts a copy of the file of mcp-hr back")
	return s.refused(ctx, "mcp-hr", bootstrap.ErrSecretIDSpent)
}

func (s *stage) tamper(ctx context.Context) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	defer client.Close()
	// Whoever can read the file can wrap something of his own.
	forged, err := client.WriteWrapped(ctx, "sys/wrapping/wrap", map[string]any{"secret_id": rand.Text()}, 5*time.Minute)
	if err != nil {
		return err
	}
	s.scrub.Add(forged.Token)
	data, err := provision.EnvFile([]provision.Issued{{Service: "mcp-finance", RoleID: s.roleID("mcp-finance"), SecretID: forged.Token}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.file("mcp-finance"), data, 0o600); err != nil {
		return err
	}
	s.say("a thief unwraps the SecretID, and wraps another in its place")
	if err := s.refused(ctx, "mcp-finance", bootstrap.ErrTampered); err != nil {
		return err
	}
	return os.Remove(s.file("mcp-finance")) // the session from before goes on
}

func (s *stage) roleID(service string) string {
	i := slices.IndexFunc(s.estate.Services, func(one provision.Service) bool { return one.Name == service })
	return s.estate.Services[i].RoleID
}

func (s *stage) change(ctx context.Context) error {
	const path, field = "tamshai/data/mcp-gateway", "claude_api_key"
	store := s.sessions["mcp-gateway"].Secrets()
	key, err := store.Secret("tamshai/mcp-gateway#" + field)
	if err != nil {
		return err
	}
	w, err := store.Watch("tamshai/mcp-gateway#" + field)
	if err != nil {
		return err
	}
	defer w.Close()
	was := key.Version()
	value := secrets.NewString(rand.Text())
	s.scrub.Add(value)
	if err := s.put(ctx, path, field, value); err != nil {
		return err
	}
	written := time.Now()
	s.say("an operator writes version %d of %s", was+1, field)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if _, err := w.Next(ctx); err != nil {
		return err
	}
	if key.Version() != was+1 || !key.Equal(value) {
		return fmt.Errorf("the handle shows version %d", key.Version())
	}
	s.say("mcp-gateway   sees version %d, %s later, without a restart (it looks every 100 ms here, every 30 s by default)", key.Version(), round(time.Since(written)))
	return nil
}

// put changes one field of a KV secret.
func (s *stage) put(ctx context.Context, path, field string, value secrets.Secret) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	defer client.Close()
	resp, err := client.Read(ctx, path, nil)
	if err != nil {
		return err
	}
	fields, ok := resp.Data["data"].(map[string]any)
	if !ok {
		return &vault.Error{Op: "read", Path: path, Class: vault.ErrNotFound}
	}
	fields[field] = value.Reveal()
	_, err = client.Write(ctx, path, map[string]any{"data": fields})
	return err
}

func (s *stage) comeBack(ctx context.Context) error {
	if err := s.vault.wipe(ctx); err != nil {
		return err
	}
	s.scrub.Add(s.vault.rootToken())
	s.say("Vault is wiped: no role, no policy, no secret, another root token")
	// The machine is gone with it: nobody is left to revoke anything.
	if err := s.closeSessions(ctx); err != nil && !errors.Is(err, vault.ErrTokenInvalid) && !errors.Is(err, vault.ErrUnreachable) {
		return err
	}
	begin := time.Now()
	_, result, err := s.apply(ctx)
	if err != nil {
		return err
	}
	s.say("provisioned again: %d changes", len(result.Done))
	if err := s.issue(ctx, cast...); err != nil {
		return err
	}
	if err := s.start(ctx, cast...); err != nil {
		return err
	}
	if err := s.table(); err != nil {
		return err
	}
	s.printf("\n  From an empty Vault to three hardened services: %s\n", s.paint(bold, round(time.Since(begin)).String()))
	return nil
}
