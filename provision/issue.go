package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// DefaultWrapTTL is how long a wrapped SecretID waits to be unwrapped.
const DefaultWrapTTL = 10 * time.Minute

// IssueConfig is how to issue SecretIDs. Its zero value is the usual way.
type IssueConfig struct {
	// WrapTTL is how long the SecretID can be unwrapped; 0 means
	// DefaultWrapTTL. In whole seconds, at most the estate's max_wrap.
	WrapTTL time.Duration
	// Audit records each SecretID, before it is made and how that ended; what
	// cannot be recorded is not issued. Nil records nothing.
	Audit auditlog.Recorder
}

// Issued is a SecretID for one service, wrapped, so that nobody has seen it; or
// the credential of the resident issuer, see [IssueCredential].
type Issued struct {
	Service  string
	RoleID   string
	SecretID secrets.Secret // the token that wraps it
	Accessor string         // of the SecretID itself
	Expires  time.Time      // of the wrapping, by Vault's clock

	estate *Estate
	also   []sealed.Var // what else stands in its env file
}

// Issue makes a one-use SecretID for each of the named services, wrapped. If
// it fails for one of them, those it has made are destroyed again.
//
// What a lost answer leaves behind is a SecretID that nobody holds, and it ends
// by itself.
func Issue(ctx context.Context, client *vault.Client, estate *Estate, services []string, cfg IssueConfig) ([]Issued, error) {
	if cfg.WrapTTL == 0 {
		cfg.WrapTTL = min(DefaultWrapTTL, estate.AppRole.MaxWrap)
	}
	if cfg.WrapTTL < time.Second || cfg.WrapTTL%time.Second != 0 || cfg.WrapTTL > estate.AppRole.MaxWrap {
		return nil, fmt.Errorf("provision: a wrapping of %s is not possible; give whole seconds, at most the estate's max_wrap of %s", cfg.WrapTTL, short(estate.AppRole.MaxWrap))
	}
	if cfg.Audit == nil {
		cfg.Audit = auditlog.Slog(nil)
	}
	var chosen []Service
	for _, name := range services {
		s, err := estate.Service(name)
		if err != nil {
			return nil, fmt.Errorf("provision: %w", err)
		}
		chosen = append(chosen, s)
	}
	var all []Issued
	for _, s := range chosen {
		one, err := issue(ctx, client, estate, s, cfg)
		if err != nil {
			err = fmt.Errorf("provision: service %s: %w", s.Name, err)
			if len(all) == 0 {
				return nil, err
			}
			return nil, errors.Join(err, Destroy(context.WithoutCancel(ctx), client, all, cfg.Audit))
		}
		all = append(all, one)
	}
	return all, nil
}

// IssueCredential makes the credential of the estate's resident issuer: a
// SecretID, not wrapped, that works from the issuer's addresses as often as it
// likes until it expires. Those that were made before stay good; [Destroy] ends
// one. It takes an operator's token, the pipeline's may not.
func IssueCredential(ctx context.Context, client *vault.Client, estate *Estate, audit auditlog.Recorder) (Issued, error) {
	i := estate.Issuer
	if i == nil {
		return Issued{}, fmt.Errorf("provision: %s has no resident issuer; add vault.issuer to it, and run phoenix provision apply", estate.File)
	}
	if audit == nil {
		audit = auditlog.Slog(nil)
	}
	// Wrapped for a moment, as that is the one way that everything is issued.
	role := Service{Name: i.Role, RoleID: i.RoleID, Login: Login{SecretIDTTL: i.SecretIDTTL}}
	one, err := issue(ctx, client, estate, role, IssueConfig{WrapTTL: time.Minute, Audit: audit})
	if err != nil {
		return Issued{}, fmt.Errorf("provision: the issuer %s: %w", i.Role, err)
	}
	secretID, err := client.Unwrap(ctx, one.SecretID)
	if err == nil && secretID.Uses != 0 {
		err = fmt.Errorf("Vault gave a SecretID of %d uses; see phoenix provision plan", secretID.Uses)
	}
	if err != nil {
		err = fmt.Errorf("provision: the issuer %s: %w", i.Role, err)
		return Issued{}, errors.Join(err, Destroy(context.WithoutCancel(ctx), client, []Issued{one}, audit))
	}
	one.SecretID, one.Expires = secretID.Value, time.Now().Add(secretID.TTL).UTC().Truncate(time.Second)
	one.also = []sealed.Var{{Name: envName(i.Role) + "EXPIRES", Value: secrets.NewString(one.Expires.Format(time.RFC3339))}}
	return one, nil
}

func issue(ctx context.Context, client *vault.Client, estate *Estate, s Service, cfg IssueConfig) (Issued, error) {
	path := vault.SecretIDPath(estate.AppRole.Mount, s.Name)
	event := auditlog.Event{
		Service: "phoenix", Environment: estate.Environment, Category: auditlog.Authentication, Severity: auditlog.Notice,
		Action: "issue.secret_id", Resource: path, Outcome: auditlog.Pending,
		Attributes: map[string]string{"for": s.Name, "wrap_ttl": short(cfg.WrapTTL)},
	}
	if err := cfg.Audit.Append(ctx, event); err != nil {
		return Issued{}, fmt.Errorf("it cannot be recorded, so none is issued: %w", err)
	}
	// Its uses and life are stated, so that a role which somebody has loosened
	// gives no better SecretID.
	wrap, err := client.WriteWrapped(ctx, path, map[string]any{
		"num_uses": s.Login.SecretIDUses, "ttl": seconds(s.Login.SecretIDTTL),
	}, cfg.WrapTTL)
	event.Attributes = map[string]string{"for": s.Name}
	if err != nil {
		event.Outcome, event.Severity = auditlog.Failure, auditlog.Error
		event.Attributes["error"] = err.Error()
		return Issued{}, errors.Join(explain(err), cfg.Audit.Append(context.WithoutCancel(ctx), event))
	}
	one := Issued{
		Service: s.Name, RoleID: s.RoleID, SecretID: wrap.Token, Accessor: wrap.WrappedAccessor,
		Expires: wrap.Created.Add(wrap.TTL).UTC(), estate: estate,
	}
	event.Outcome = auditlog.Success
	event.Attributes["accessor"], event.Attributes["expires"] = one.Accessor, one.Expires.Format(time.RFC3339)
	if err := cfg.Audit.Append(ctx, event); err != nil {
		err = fmt.Errorf("it cannot be recorded: %w", err)
		return Issued{}, errors.Join(err, Destroy(context.WithoutCancel(ctx), client, []Issued{one}, nil))
	}
	return one, nil
}

// explain adds what to do about an error of Vault.
func explain(err error) error {
	switch {
	case errors.Is(err, vault.ErrDenied):
		return fmt.Errorf("%w; the token needs the pipeline's policy: phoenix provision apply --only pipeline", err)
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrInvalid):
		return fmt.Errorf("%w; Vault may differ from the estate: see phoenix provision plan", err)
	}
	return err
}

// destroyTime bounds the taking back of SecretIDs, which happens while
// something else has failed already.
const destroyTime = 30 * time.Second

// Destroy takes SecretIDs back, used or not, by their accessors. One that is
// gone already is no error. It tries them all.
func Destroy(ctx context.Context, client *vault.Client, issued []Issued, audit auditlog.Recorder) error {
	if audit == nil {
		audit = auditlog.Slog(nil)
	}
	ctx, cancel := context.WithTimeout(ctx, destroyTime)
	defer cancel()
	var all error
	for _, one := range issued {
		path := vault.SecretIDPath(one.estate.AppRole.Mount, one.Service)
		err := client.Retry(ctx, "destroy a SecretID", func(ctx context.Context) error {
			_, err := client.Write(ctx, path+"-accessor/destroy", map[string]any{"secret_id_accessor": one.Accessor})
			if accessorGone(err) {
				return nil
			}
			return err
		})
		event := auditlog.Event{
			Service: "phoenix", Environment: one.estate.Environment, Category: auditlog.Authentication, Severity: auditlog.Warning,
			Action: "issue.destroy", Resource: path, Outcome: auditlog.Success,
			Attributes: map[string]string{"for": one.Service, "accessor": one.Accessor},
		}
		if err != nil {
			event.Outcome, event.Severity = auditlog.Failure, auditlog.Error
			event.Attributes["error"] = err.Error()
			err = fmt.Errorf("provision: the SecretID of %s with the accessor %s is not destroyed; it ends at %s at the latest: %w",
				one.Service, one.Accessor, one.Expires.Format(time.TimeOnly), err)
		}
		all = errors.Join(all, err, audit.Append(context.WithoutCancel(ctx), event))
	}
	return all
}

// accessorGone recognises Vault's answer about an accessor that it does not
// know (any more): 404, or 500 with these words.
func accessorGone(err error) bool {
	var e *vault.Error
	return errors.Is(err, vault.ErrNotFound) ||
		errors.As(err, &e) && strings.Contains(e.Detail, "failed to find accessor entry")
}

// EnvFile writes what services need in the deployment's own names, two lines
// for each: VAULT_<SERVICE>_ROLE_ID and VAULT_<SERVICE>_SECRET_ID. That of the
// issuer's credential also says when it ends (…_EXPIRES). It is secret.
func EnvFile(issued []Issued) ([]byte, error) {
	var vars []sealed.Var
	for _, one := range issued {
		prefix := envName(one.Service)
		vars = append(vars,
			sealed.Var{Name: prefix + "ROLE_ID", Value: secrets.NewString(one.RoleID)},
			sealed.Var{Name: prefix + "SECRET_ID", Value: one.SecretID})
		vars = append(vars, one.also...)
	}
	return sealed.FormatEnv(vars)
}
