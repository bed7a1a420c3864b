package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// Found is what a start would log in with.
type Found struct {
	RoleID   string         // "" if there is none
	SecretID secrets.Secret // bare, or the token that wraps it
	From     string         // the file or variable it is in
}

// Find says what [Start] would log in with, and spends nothing of it. It reads
// the file that cfg or the environment names. Errors: ErrConfig,
// ErrNoSecretID; what was found so far comes with them.
func Find(cfg Config) (Found, error) {
	cfg, err := FromEnv(cfg)
	if err != nil {
		return Found{}, err
	}
	s := &source{cfg: &cfg}
	c, err := s.next()
	if c.roleID == "" {
		c.roleID = cfg.RoleID
	}
	if c.from == "" {
		c.from = s.path()
	}
	return Found{RoleID: c.roleID, SecretID: c.secretID, From: c.from}, err
}

// A Trial is a login for the sake of looking: it has a token, and loads,
// renews and waits for nothing. It is for this module's own commands; a
// service uses [Start].
type Trial struct {
	broker *broker
	login  *login
}

// Try logs in once as [Start] does, which spends the SecretID and removes its
// file: it verifies, unwraps, logs in, destroys and proves. Each step is
// recorded. Close the Trial to revoke its token.
func Try(ctx context.Context, cfg Config) (*Trial, error) {
	cfg, err := FromEnv(cfg)
	if err != nil {
		return nil, err
	}
	client, err := vault.New(cfg.vault())
	if err != nil {
		return nil, &Error{Step: "read the configuration", Err: fmt.Errorf("%w: %w", ErrConfig, err)}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = vault.DefaultTimeout
	}
	b := &broker{cfg: &cfg, client: client, source: &source{cfg: &cfg}}
	t := &Trial{broker: b}
	ctx, cancel := context.WithTimeout(ctx, cfg.Budget)
	defer cancel()
	if t.login, err = t.open(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return t, nil
}

func (t *Trial) open(ctx context.Context) (*login, error) {
	c, err := t.broker.source.next()
	if err != nil {
		return nil, &Error{Step: "find the SecretID", Err: err, Remedy: "issue one with phoenix issue and name its file in VAULT_SECRET_ID_FILE"}
	}
	l, err := t.broker.login(ctx, c)
	if err != nil {
		return nil, err
	}
	l.boot.Proof, err = t.broker.bury(ctx, l)
	if err != nil && !errors.Is(err, ErrNotProven) { // which the Boot tells
		return nil, errors.Join(err, t.broker.discard(ctx, l))
	}
	return l, nil
}

// Client speaks to Vault with the Trial's token.
func (t *Trial) Client() *vault.Client { return t.login.client }

// Boot says how the login went.
func (t *Trial) Boot() Boot { return t.login.boot }

// Close revokes the token, whatever has happened to ctx.
func (t *Trial) Close(ctx context.Context) error {
	defer t.broker.client.Close()
	return t.broker.discard(ctx, t.login)
}

// Format writes the service's name for every verb: a Trial holds a token.
func (t *Trial) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "trial login of "+t.broker.cfg.Service)
}

// MarshalText is Format; encoding/json and log/slog use it too.
func (t *Trial) MarshalText() ([]byte, error) { return fmt.Append(nil, t), nil }
