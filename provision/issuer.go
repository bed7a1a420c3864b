package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// IssuerConfig is how the resident issuer works. Path is required.
type IssuerConfig struct {
	// Path is where each service's spare lies, with {service} for its name:
	// "/run/phoenix/{service}/{service}.env". The folders must exist, be in
	// memory, and be writable for nobody else.
	Path string
	// Services are those to issue for; nil means those of the estate's
	// vault.issuer, and all services if it has none.
	Services []string
	// Owner is whose the files are; nil means the owner of each one's folder.
	Owner *Owner
	// Disk permits folders that are on a disk.
	Disk bool
	// WrapTTL is how long a spare can be used; 0 means DefaultWrapTTL, or the
	// estate's max_wrap if that is shorter. In whole seconds, a minute or more.
	WrapTTL time.Duration
	// A service gets Burst SecretIDs at once (0 means 5), and then one each
	// Every (0 means a minute). When that is not enough there is an alarm.
	Burst int
	Every time.Duration
	// Poll is how often the files are looked at; 0 means 1 s.
	Poll time.Duration
	// Lookup is how often Vault is asked whether a spare that still lies there
	// was used: a service that may not write cannot remove its file. 0 means
	// 30 s.
	Lookup time.Duration
	// Credential returns what to log in with; it is called for each login. Nil
	// means that the client has a token, which is kept alive as long as it can
	// be, and not revoked.
	Credential func() (Credential, error)

	Audit  auditlog.Recorder // what cannot be recorded is not done; nil records nothing
	Logger *slog.Logger      // nil discards
	Rand   func() float64    // uniform in [0,1) for jitter; nil means math/rand/v2
	// Beat is called whenever the issuer has got on with something, and at each
	// Poll: for a watchdog. Nil: nobody is.
	Beat func()
}

// standby marks a spare's env file. A session of package bootstrap that is well
// leaves such a SecretID where it is.
const standby = "PHOENIX_STANDBY"

const (
	// A spare is replaced between these parts of its life.
	replaceFrom, replaceTo = 0.75, 0.85
	// retireGrace is what is left to a service that took the old spare a moment
	// before it was replaced.
	retireGrace = 10 * time.Second
	// renewCredential is how long before its end a credential is warned of.
	renewCredential = 14 * 24 * time.Hour
)

// An Issuer is the resident issuer: it keeps a fresh wrapped SecretID, the
// spare, in a file for each service, so that a restart needs no pipeline.
//
// A spare is consumed when its file is gone or Vault says that its wrapping was
// used. Then, and towards the end of its life, there is a new one; the one that
// nobody has used is destroyed. What lies there at the start, or is put there
// by somebody else, is left alone until it is used or near its end.
type Issuer struct {
	cfg      IssuerConfig
	estate   *Estate
	identity *identity
	spares   []*spare
	away     pause // while nothing can be done at all

	mu     sync.Mutex
	status IssuerStatus
}

// A spare is what the issuer knows about one service.
type spare struct {
	service Service
	file    spareFile
	bucket  *rate.Limiter
	held    *held // what lies in the file; nil: nothing
	retired []retired
	waits   pause // after an error of this service alone
	alarmed bool
	refused bool // since the last issue; recorded
}

// held is what lies in a file.
type held struct {
	info    fs.FileInfo
	token   secrets.Secret
	issued  *Issued // nil: somebody else put it there, or an earlier run
	replace time.Time
	expires time.Time
	lookup  time.Time // when to ask Vault about it
	spent   bool
}

// retired is an unused SecretID that is not in the file any more.
type retired struct {
	issued Issued
	at     time.Time // when to destroy it
}

// NewIssuer returns the resident issuer of an estate; [Issuer.Run] runs it. The
// error says everything that is wrong with cfg and the folders.
func NewIssuer(client *vault.Client, estate *Estate, cfg IssuerConfig) (*Issuer, error) {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("provision: "+format, args...))
	}
	if cfg.WrapTTL == 0 {
		cfg.WrapTTL = min(DefaultWrapTTL, estate.AppRole.MaxWrap)
	}
	if cfg.WrapTTL < time.Minute || cfg.WrapTTL%time.Second != 0 || cfg.WrapTTL > estate.AppRole.MaxWrap {
		bad("a spare's life of %s is not possible; give whole seconds, a minute or more, at most the estate's max_wrap of %s", cfg.WrapTTL, short(estate.AppRole.MaxWrap))
	}
	setDefault(&cfg.Burst, 5)
	setDefault(&cfg.Every, time.Minute)
	setDefault(&cfg.Poll, time.Second)
	setDefault(&cfg.Lookup, 30*time.Second)
	if cfg.Burst < 1 || cfg.Every < time.Second || cfg.Poll < 0 || cfg.Lookup < 0 {
		bad("a burst must be 1 or more, the time between two SecretIDs a second or more, and no time negative")
	}
	if cfg.Services == nil {
		if cfg.Services = estate.ServiceNames(); estate.Issuer != nil {
			cfg.Services = estate.Issuer.Services
		}
	}
	if len(cfg.Services) == 0 {
		bad("there is no service to issue for")
	}
	if len(cfg.Services) > 1 && !strings.Contains(cfg.Path, "{service}") {
		bad("the path %q is the same for every service; put {service} into it", cfg.Path)
	}
	if cfg.Credential != nil && estate.Issuer == nil {
		bad("%s has no resident issuer to log in as; add vault.issuer to it, and run phoenix provision apply", estate.File)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Audit == nil {
		cfg.Audit = auditlog.Slog(nil)
	}
	if cfg.Beat == nil {
		cfg.Beat = func() {}
	}
	i := &Issuer{cfg: cfg, estate: estate}
	i.identity = &identity{Issuer: i, bare: client}
	for _, name := range cfg.Services {
		s, err := estate.Service(name)
		if err != nil {
			bad("%w", err)
			continue
		}
		if life := min(cfg.WrapTTL, s.Login.SecretIDTTL); cfg.Every > life/2 {
			bad("service %s: its spare lives for %s, and one each %s would not keep it fresh; give at least two in that time", name, short(life), short(cfg.Every))
		}
		file := spareFile{path: strings.ReplaceAll(cfg.Path, "{service}", name), owner: cfg.Owner, disk: cfg.Disk}
		if _, err := file.check(); err != nil {
			bad("service %s: %w", name, err)
		}
		i.spares = append(i.spares, &spare{service: s, file: file, bucket: rate.NewLimiter(rate.Every(cfg.Every), cfg.Burst)})
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	i.publish(nil)
	return i, nil
}

func setDefault[T comparable](value *T, to T) {
	var zero T
	if *value == zero {
		*value = to
	}
}

// ErrTokenLost ends an issuer that was given a token and has no credential to
// obtain another.
var ErrTokenLost = errors.New("the issuer's token is lost")

// Run works until ctx ends, which is no error. Then it revokes the token that
// it logged in for, and leaves the files: services can still boot from them. A
// Vault that is away, sealed, or does not know the credential is waited for.
// Errors: ErrTokenLost.
func (i *Issuer) Run(ctx context.Context) error {
	defer i.leave(ctx)
	for {
		if err := i.pass(ctx); err != nil {
			return err
		}
		timer := time.NewTimer(i.cfg.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// leave ends what the issuer holds of Vault.
func (i *Issuer) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, s := range i.spares {
		for _, old := range s.retired {
			i.destroy(ctx, i.identity.client, old.issued)
		}
	}
	i.identity.end(ctx)
}

// pass looks after every service once. Its error ends the issuer.
func (i *Issuer) pass(ctx context.Context) error {
	defer i.cfg.Beat()
	if i.away.active() {
		return nil
	}
	client, err := i.identity.get(ctx)
	for _, s := range i.spares {
		if err != nil || ctx.Err() != nil {
			break
		}
		err = i.tend(ctx, client, s)
		i.cfg.Beat()
	}
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, vault.ErrTokenInvalid) {
		err = errors.Join(err, i.identity.lost(err))
	}
	i.publish(err)
	switch {
	case errors.Is(err, ErrTokenLost):
		return fmt.Errorf("provision: %w; give it a new one, or a credential that it can log in with again: phoenix issue --issuer", err)
	case err != nil:
		if i.away.after(i.cfg.Rand(), err) {
			i.cfg.Logger.Warn("nothing can be issued; trying again", "error", err)
		}
	case i.away.over():
		i.cfg.Logger.Info("issuing again")
	}
	return nil
}

// tend looks after one service. The error concerns every service.
func (i *Issuer) tend(ctx context.Context, client *vault.Client, s *spare) error {
	i.bury(ctx, client, s)
	if s.waits.active() {
		return nil
	}
	err := i.serve(ctx, client, s)
	switch {
	case vault.Retryable(err), errors.Is(err, vault.ErrTokenInvalid), ctx.Err() != nil:
		return err
	case err == nil:
		s.waits.over()
	case s.waits.after(i.cfg.Rand(), err):
		i.cfg.Logger.Error("a service cannot be served; trying again", "for", s.service.Name, "error", err)
	}
	return nil
}

// serve gives the service a spare if it needs one and may have it.
func (i *Issuer) serve(ctx context.Context, client *vault.Client, s *spare) error {
	if s.alarmed && s.bucket.Tokens() >= float64(i.cfg.Burst) {
		if err := i.record(ctx, s, auditlog.Event{Action: "issuer.calm", Category: auditlog.Security, Severity: auditlog.Notice}, nil); err != nil {
			return err
		}
		s.alarmed = false
		i.cfg.Logger.Info("the alarm is over", "for", s.service.Name)
	}
	why, err := i.examine(ctx, client, s)
	switch {
	case err != nil || why == "":
		return err
	case s.bucket.Tokens() < 1:
		return i.refuse(ctx, s)
	}
	return i.replenish(ctx, client, s, why)
}

// examine returns why the service needs a new spare, "" if it needs none.
func (i *Issuer) examine(ctx context.Context, client *vault.Client, s *spare) (why string, err error) {
	info, err := s.file.look()
	if err != nil {
		return "", err
	}
	if info == nil {
		if s.held != nil && !s.held.spent {
			if err := i.consumed(ctx, s, "its file is gone"); err != nil {
				return "", err
			}
		}
		s.held = nil
		return "there is none", nil
	}
	if s.held == nil || !same(s.held.info, info) {
		if err := i.adopt(s, info); err != nil {
			return "", err
		}
	}
	due := func() bool { return !time.Now().Before(s.held.replace) }
	if h := s.held; vault.IsWrapping(h.token) && !h.spent && (due() || !time.Now().Before(h.lookup)) {
		if err := i.ask(ctx, client, s); err != nil {
			return "", err
		}
	}
	switch {
	case s.held.spent:
		return "it was used, or has expired", nil
	case due():
		return "it is near its end", nil
	}
	return "", nil
}

// adopt takes note of a file that somebody else has written.
func (i *Issuer) adopt(s *spare, info fs.FileInfo) error {
	token, err := s.file.read(s.service.Name, info)
	if err != nil {
		return err
	}
	s.retire()
	now := time.Now()
	born := info.ModTime()
	if born.After(now) {
		born = now
	}
	s.hold(i, held{info: info, token: token, lookup: now}, born, i.life(s))
	return nil
}

// life is how long a spare of the service can be used.
func (i *Issuer) life(s *spare) time.Duration { return min(i.cfg.WrapTTL, s.service.Login.SecretIDTTL) }

// hold takes note of what lies in the file since born, and can be used for life.
func (s *spare) hold(i *Issuer, h held, born time.Time, life time.Duration) {
	h.expires = born.Add(life)
	h.replace = born.Add(time.Duration((replaceFrom + i.cfg.Rand()*(replaceTo-replaceFrom)) * float64(life)))
	s.held = &h
}

// ask asks Vault whether the wrapping is still good, which does not spend it.
func (i *Issuer) ask(ctx context.Context, client *vault.Client, s *spare) error {
	h := s.held
	wrap, err := client.LookupWrapping(ctx, h.token)
	switch {
	case errors.Is(err, vault.ErrWrapInvalid):
		if time.Now().Before(h.expires) {
			if err := i.consumed(ctx, s, "its wrapping was used, or this Vault does not know it"); err != nil {
				return err
			}
		}
		h.spent = true
		return nil
	case err != nil:
		return err
	}
	h.lookup = time.Now().Add(i.cfg.Lookup)
	if h.issued == nil {
		// Now it is known how old it is, by Vault's clock.
		s.hold(i, *h, time.Now().Add(-wrap.Age), min(wrap.TTL, s.service.Login.SecretIDTTL))
	}
	return nil
}

// replenish issues a spare and puts it into the file.
func (i *Issuer) replenish(ctx context.Context, client *vault.Client, s *spare, why string) error {
	if _, err := s.file.check(); err != nil {
		return err // before it costs a SecretID
	}
	issued, err := issue(ctx, client, i.estate, s.service, IssueConfig{WrapTTL: i.cfg.WrapTTL, Audit: i.cfg.Audit})
	if err != nil {
		return err
	}
	issued.also = []sealed.Var{{Name: standby, Value: secrets.NewString("1")}}
	now := time.Now()
	text, err := EnvFile([]Issued{issued})
	defer clear(text)
	var info fs.FileInfo
	if err == nil {
		info, err = s.file.write(text)
	}
	if err != nil {
		i.destroy(ctx, client, issued)
		return fmt.Errorf("the spare cannot be written: %w", err)
	}
	s.bucket.Allow()
	s.retire()
	s.hold(i, held{info: info, token: issued.SecretID, issued: &issued, lookup: now.Add(i.cfg.Lookup)}, now, i.life(s))
	s.refused = false
	i.cfg.Logger.Info("issued a spare", "for", s.service.Name, "why", why, "accessor", issued.Accessor, "expires", issued.Expires.Format(time.RFC3339))
	return nil
}

// retire marks what was held for destruction, if it is known and unused.
func (s *spare) retire() {
	if h := s.held; h != nil && h.issued != nil && !h.spent {
		s.retired = append(s.retired, retired{*h.issued, time.Now().Add(retireGrace)})
	}
}

// bury destroys what was retired long enough ago.
func (i *Issuer) bury(ctx context.Context, client *vault.Client, s *spare) {
	for len(s.retired) > 0 && !time.Now().Before(s.retired[0].at) {
		i.destroy(ctx, client, s.retired[0].issued)
		s.retired = s.retired[1:]
	}
}

// destroy takes a SecretID back. If that fails it ends by itself.
func (i *Issuer) destroy(ctx context.Context, client *vault.Client, one Issued) {
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := Destroy(ctx, client, []Issued{one}, i.cfg.Audit); err != nil {
		i.cfg.Logger.Warn("an unused SecretID is not destroyed; it ends by itself", "for", one.Service, "error", err)
	}
}

// consumed records that a service has used its spare.
func (i *Issuer) consumed(ctx context.Context, s *spare, how string) error {
	attributes := map[string]string{"how": how}
	if s.held.issued != nil {
		attributes["accessor"] = s.held.issued.Accessor
	}
	i.cfg.Logger.Info("a spare was consumed", "for", s.service.Name, "how", how)
	return i.record(ctx, s, auditlog.Event{Action: "issuer.consumed", Severity: auditlog.Notice}, attributes)
}

// refuse leaves a service without a spare because it has had too many.
func (i *Issuer) refuse(ctx context.Context, s *spare) error {
	attributes := func() map[string]string {
		return map[string]string{"burst": fmt.Sprint(i.cfg.Burst), "every": short(i.cfg.Every)}
	}
	if !s.alarmed {
		i.cfg.Logger.Error("ALARM: a service consumes too many SecretIDs: it restarts again and again, or somebody else takes them", "for", s.service.Name, "burst", i.cfg.Burst, "every", i.cfg.Every)
		if err := i.record(ctx, s, auditlog.Event{Action: "issuer.alarm", Category: auditlog.Security, Severity: auditlog.Alert, Outcome: auditlog.Blocked}, attributes()); err != nil {
			return err
		}
		s.alarmed = true
	}
	if !s.refused {
		if err := i.record(ctx, s, auditlog.Event{Action: "issuer.refused", Severity: auditlog.Warning, Outcome: auditlog.Blocked}, attributes()); err != nil {
			return err
		}
		s.refused = true
	}
	return nil
}

// record appends an event about a service, or about the issuer if s is nil.
func (i *Issuer) record(ctx context.Context, s *spare, e auditlog.Event, attributes map[string]string) error {
	e.Service, e.Environment, e.Attributes = "phoenix", i.estate.Environment, map[string]string{}
	for name, value := range attributes {
		e.Attributes[name] = value
	}
	if e.Category == "" {
		e.Category = auditlog.Authentication
	}
	if e.Outcome == "" {
		e.Outcome = auditlog.Success
	}
	if s != nil {
		e.Resource, e.Attributes["for"] = vault.SecretIDPath(i.estate.AppRole.Mount, s.service.Name), s.service.Name
	}
	if err := i.cfg.Audit.Append(context.WithoutCancel(ctx), e); err != nil {
		return fmt.Errorf("it cannot be recorded, so nothing is issued: %w", err)
	}
	return nil
}

// A pause is the time after an error until the next try, which grows.
type pause struct {
	until time.Time
	last  time.Duration
	said  string
}

const firstPause, longestPause = time.Second, 30 * time.Second

func (p *pause) active() bool { return time.Now().Before(p.until) }

// after begins a pause, and reports whether err is another one than before.
func (p *pause) after(jitter float64, err error) bool {
	p.last = min(max(2*p.last, firstPause), longestPause)
	wait := time.Duration((1 + jitter) / 2 * float64(p.last))
	var e *vault.Error
	if errors.As(err, &e) {
		wait = max(wait, min(e.After, longestPause))
	}
	p.until = time.Now().Add(wait)
	news := p.said != err.Error()
	p.said = err.Error()
	return news
}

// over ends the pauses, and reports whether there was one.
func (p *pause) over() bool {
	was := p.said != ""
	*p = pause{}
	return was
}
