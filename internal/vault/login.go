package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// IsWrapping reports whether value has the form of a Vault token, as a wrapped
// SecretID has and a bare one (a UUID) has not.
func IsWrapping(value secrets.Secret) bool {
	wrapping := false
	secmem.Do(func() {
		text := value.Reveal()
		wrapping = strings.HasPrefix(text, "hvs.") || strings.HasPrefix(text, "s.")
	})
	return wrapping
}

// LookupWrapping asks what token wraps, without spending it: CreationPath,
// Created, Age and TTL. A used or unknown token is ErrWrapInvalid. It may be
// retried.
func (c *Client) LookupWrapping(ctx context.Context, token secrets.Secret) (*Wrap, error) {
	c.scrub.Add(token)
	const path = "sys/wrapping/lookup"
	resp, err := c.write(ctx, "look up the wrapping token", path, map[string]any{"token": token})
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, &Error{Op: "look up the wrapping token", Path: path, Class: ErrServer, Sent: true, Detail: "empty answer"}
	}
	w := &Wrap{Token: token}
	w.CreationPath, _ = resp.Data["creation_path"].(string)
	ttl, _ := resp.Data["creation_ttl"].(json.Number)
	seconds, err := ttl.Int64()
	created, _ := resp.Data["creation_time"].(string)
	at, err2 := time.Parse(time.RFC3339Nano, created)
	if err := errors.Join(err, err2); err != nil || w.CreationPath == "" {
		return nil, &Error{Op: "look up the wrapping token", Path: path, Class: ErrServer, Sent: true, Detail: "the answer is not one of Vault"}
	}
	w.TTL, w.Created = time.Duration(seconds)*time.Second, at
	w.Age = resp.ServerTime.Sub(at).Truncate(time.Second)
	return w, nil
}

// SecretID is what unwrapping gives.
type SecretID struct {
	Value    secrets.Secret
	Accessor string
	TTL      time.Duration
	Uses     int // 0: without bound
}

// Unwrap spends a wrapping token for the SecretID in it. It is sent once: an
// error that may hide a success is ErrOutcomeUnknown. ctx alone bounds it.
func (c *Client) Unwrap(ctx context.Context, token secrets.Secret) (*SecretID, error) {
	const op = "unwrap the SecretID"
	resp, err := c.unwrap(ctx, op, token)
	if err != nil {
		return nil, err
	}
	s := &SecretID{}
	value, _ := resp.Data["secret_id"].(string)
	if value == "" {
		return nil, &Error{Op: op, Path: unwrapPath, Class: ErrWrapInvalid, Sent: true, Detail: "it does not wrap a SecretID"}
	}
	s.Value = secrets.NewString(value)
	c.scrub.Add(s.Value)
	s.Accessor, _ = resp.Data["secret_id_accessor"].(string)
	s.TTL = number(resp.Data["secret_id_ttl"]) * time.Second
	s.Uses = int(number(resp.Data["secret_id_num_uses"]))
	return s, nil
}

const unwrapPath = "sys/wrapping/unwrap"

// unwrap spends a wrapping token for the answer that it wraps, once.
func (c *Client) unwrap(ctx context.Context, op string, token secrets.Secret) (*Response, error) {
	unwrapping, err := c.patient(token)
	if err != nil {
		return nil, err
	}
	resp, err := unwrapping.do(ctx, op, unwrapPath, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.WriteWithContext(ctx, unwrapPath, nil)
	})
	if err != nil {
		return nil, once(err)
	}
	if resp == nil {
		return nil, &Error{Op: op, Path: unwrapPath, Class: ErrWrapInvalid, Sent: true, Detail: "it wraps an empty answer"}
	}
	return resp, nil
}

// number reads a JSON number; what is none is 0.
func number(v any) time.Duration {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return time.Duration(i)
}

// once marks an error of a request that must not be sent again. Vault's own
// refusal (4xx but 429) is an answer; after anything else that may have
// reached the server nobody knows.
func once(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Sent && Retryable(err) {
		marked := *e
		marked.Class = fmt.Errorf("%w (%w)", ErrOutcomeUnknown, e.Class)
		return &marked
	}
	return err
}

// Login trades a SecretID for a token at the AppRole mount ("approle"). It is
// sent once: an error that may hide a success is ErrOutcomeUnknown. ctx alone
// bounds it. Other errors: ErrSpent, ErrLockedOut.
//
// Vault answers 403 to a login from a role that is locked out after five
// failures, and to one from an address that the role does not allow.
func (c *Client) Login(ctx context.Context, mount, roleID string, secretID secrets.Secret) (*Auth, error) {
	c.scrub.Add(secretID)
	path := "auth/" + mount + "/login"
	if roleID == "" || secretID.IsZero() {
		return nil, &Error{Op: "log in", Path: path, Class: ErrInvalid, Detail: "the RoleID or the SecretID is empty"}
	}
	waiting, err := c.patient(c.token)
	if err != nil {
		return nil, err
	}
	resp, err := waiting.try(ctx, "log in", path, func(ctx context.Context, try *attempt) (*api.Secret, error) {
		method, err := approle.NewAppRoleAuth(roleID, &approle.SecretID{FromString: try.hide(secretID)}, approle.WithMountPath(mount))
		if err != nil {
			return nil, err
		}
		return method.Login(ctx, waiting.api())
	})
	if err != nil {
		return nil, loginClass(once(err))
	}
	if resp == nil || resp.Auth == nil || resp.Auth.Token.IsZero() {
		return nil, &Error{Op: "log in", Path: path, Class: ErrOutcomeUnknown, Sent: true, Detail: "the answer holds no token"}
	}
	return resp.Auth, nil
}

// loginClass reads the classes of an error as a login means them.
func loginClass(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Class == ErrInvalid && (strings.Contains(e.Detail, "invalid role or secret ID") || strings.Contains(e.Detail, "invalid secret_id")):
		e.Class = ErrSpent
	case e.Class == ErrDenied:
		e.Class = ErrLockedOut
	}
	return err
}

// DestroySecretID destroys a SecretID of role. One that is gone already is no
// error. It may be retried.
func (c *Client) DestroySecretID(ctx context.Context, mount, role string, secretID secrets.Secret) error {
	_, err := c.write(ctx, "destroy the SecretID", secretIDPath(mount, role)+"/destroy", map[string]any{"secret_id": secretID})
	return err
}

// SecretIDExists asks Vault whether role has this SecretID. The answer is only
// worth something if role is the one that the SecretID was made for: of
// another role's live SecretID Vault says that it does not exist.
func (c *Client) SecretIDExists(ctx context.Context, mount, role string, secretID secrets.Secret) (bool, error) {
	resp, err := c.write(ctx, "look up the SecretID", secretIDPath(mount, role)+"/lookup", map[string]any{"secret_id": secretID})
	if err != nil {
		return false, err
	}
	return resp != nil, nil
}

func secretIDPath(mount, role string) string { return "auth/" + mount + "/role/" + role + "/secret-id" }

// SecretIDPath is the path that makes SecretIDs for role: a wrapped one's
// creation_path.
func SecretIDPath(mount, role string) string { return secretIDPath(mount, role) }

// Token is what Vault says of a token.
type Token struct {
	Accessor       string
	TTL            time.Duration
	Period         time.Duration // 0: not periodic
	ExplicitMaxTTL time.Duration // 0: none
	Issued         time.Time
	Renewable      bool
	Type           string
	Path           string // of the login that gave it: "auth/approle/login"
	Policies       []string
	Metadata       map[string]string
	CreationTTL    time.Duration // what a renewal gives while no maximum is near
}

// LookupSelf asks Vault about the Client's token.
func (c *Client) LookupSelf(ctx context.Context) (*Token, error) {
	const op, path = "look up the token", "auth/token/lookup-self"
	resp, err := c.do(ctx, op, path, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ReadWithContext(ctx, path)
	})
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, &Error{Op: op, Path: path, Class: ErrServer, Sent: true, Detail: "empty answer"}
	}
	t := &Token{Metadata: map[string]string{}}
	t.Accessor, _ = resp.Data["accessor"].(string)
	t.TTL = number(resp.Data["ttl"]) * time.Second
	t.Period = number(resp.Data["period"]) * time.Second
	t.ExplicitMaxTTL = number(resp.Data["explicit_max_ttl"]) * time.Second
	if issued, ok := resp.Data["issue_time"].(string); ok {
		t.Issued, _ = time.Parse(time.RFC3339Nano, issued)
	}
	t.Renewable, _ = resp.Data["renewable"].(bool)
	t.Type, _ = resp.Data["type"].(string)
	t.Path, _ = resp.Data["path"].(string)
	t.CreationTTL = number(resp.Data["creation_ttl"]) * time.Second
	for _, list := range []string{"policies", "identity_policies"} {
		names, _ := resp.Data[list].([]any)
		for _, name := range names {
			policy, _ := name.(string)
			t.Policies = append(t.Policies, policy)
		}
	}
	meta, _ := resp.Data["meta"].(map[string]any)
	for name, value := range meta {
		t.Metadata[name], _ = value.(string)
	}
	return t, nil
}

// RenewSelf renews the Client's token and returns what it is good for now. It
// waits its turn: a Client and its relatives send at most 12 renewals a minute.
func (c *Client) RenewSelf(ctx context.Context) (Grant, error) {
	const op, path = "renew the token", "auth/token/renew-self"
	if err := c.renewals.wait(ctx); err != nil {
		return Grant{}, err
	}
	resp, err := c.write(ctx, op, path, nil)
	if err != nil {
		return Grant{}, err
	}
	if resp == nil || resp.Auth == nil {
		return Grant{}, &Error{Op: op, Path: path, Class: ErrServer, Sent: true, Detail: "the answer holds no token"}
	}
	return Grant{TTL: resp.Auth.TTL, Renewable: resp.Auth.Renewable}, nil
}

// RevokeSelf revokes the Client's token, and with it its children and every
// lease that it obtained. A token that is dead already is no error.
func (c *Client) RevokeSelf(ctx context.Context) error {
	_, err := c.write(ctx, "revoke the token", "auth/token/revoke-self", nil)
	if errors.Is(err, ErrTokenInvalid) {
		return nil
	}
	return err
}
