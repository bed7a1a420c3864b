package bootstrap

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// Config says who the service is, where Vault is and what to load. Only
// Service is required if the environment names the rest: each empty field is
// filled from the variable named beside it.
type Config struct {
	Service     string // the service's name, and its role's: "mcp-hr"
	Environment string // for audit events: "stage"

	Addr           string // VAULT_ADDR: "https://vault:8200"
	Namespace      string // VAULT_NAMESPACE
	CACertFile     string // VAULT_CACERT; followed when it changes
	CACertPEM      []byte // VAULT_CACERT_BYTES
	ServerName     string // VAULT_TLS_SERVER_NAME
	ClientCertFile string // VAULT_CLIENT_CERT
	ClientKeyFile  string // VAULT_CLIENT_KEY
	// AllowPlaintext permits an http:// address that is not loopback. There is
	// no variable for it.
	AllowPlaintext bool
	// Timeout is for one request to Vault: VAULT_CLIENT_TIMEOUT; 0 means 15 s.
	// Unwrap and login, which are sent once, have what is left of Budget.
	Timeout time.Duration
	// DialContext, if not nil, makes the connections to Vault.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	Mount  string // where AppRole is mounted; "" means "approle"
	Role   string // the role's name; "" means Service
	RoleID string // VAULT_<SERVICE>_ROLE_ID or VAULT_ROLE_ID, or in the SecretID's file

	// Where the SecretID comes from; see the package documentation. SecretID is
	// used first; the file beside it then serves hand-overs. A SecretID that is
	// given here is the caller's, who may Wipe it when Start has returned.
	SecretID     secrets.Secret
	SecretIDFile string // VAULT_SECRET_ID_FILE
	SealedFile   string // PHOENIX_SEALED_FILE: an env file sealed with age
	IdentityFile string // PHOENIX_IDENTITY_FILE: the age identity that opens it

	// RequireWrapped refuses a SecretID that is not response-wrapped: only a
	// wrapped one shows whether somebody has read it on the way.
	RequireWrapped bool
	// MaxWrapTTL is the longest creation_ttl that a wrapped SecretID may have;
	// 0 means 15 minutes.
	MaxWrapTTL time.Duration
	// RequireProof fails the start unless Vault shows that the SecretID is
	// gone. Otherwise a role that may not ask starts with a warning.
	RequireProof bool
	// Spent says what to do about a spent or missing SecretID.
	Spent SpentPolicy

	// TicketFile, if not "", is where Close leaves a restart ticket and Start
	// looks for one: a file in a folder of this service alone, on a tmpfs. See
	// the package documentation. Instances that run side by side need one each.
	TicketFile string
	// TicketTTL is how long a ticket is good for; 0 means 5 minutes, at most 15.
	TicketTTL time.Duration
	// AllowTicketOnDisk permits a TicketFile that is not on a tmpfs. Backups and
	// images of the disk then hold tickets; one that is not used yet is a token.
	AllowTicketOnDisk bool

	Into    any      // a struct to fill; see secrets.Config
	Secrets []string // more declared references: "tamshai/mcp-hr#password"
	Leases  []string // "database/creds/mcp-hr", or "database/static-creds/app"
	Certs   []CertRequest
	// Identity, if not nil, is the certificate of [Session.Identity].
	Identity *CertRequest
	// Issuer is the PKI role of [Session.Issuer], like "pki/sign/mcp-hr-db"; ""
	// means Identity's.
	Issuer string
	// Roots is the PKI mount of [Session.Roots], whose self-signed issuers
	// Identity and Issuer trust: the one with the roots, if the roles are in another. "" means the
	// mount of Identity's role, or else of Issuer's; if that knows no root, what
	// the newest certificate's chain ends in is trusted.
	Roots string
	// RootsPoll is the mean time between looks at Roots; 0 means a minute,
	// negative that they are looked at when a certificate is issued, and only then.
	RootsPoll time.Duration
	// Signer is the key of [Session.Signer] in Vault's transit engine, like
	// "transit/sign/mcp-hr".
	Signer string
	// Poll is the mean time between looks for new versions; 0 means 30 s,
	// negative never. Hand-overs are looked for as often, and at least every 5 s.
	Poll time.Duration
	// Drain is how long users of a replaced lease have to move over; 0 means a
	// minute.
	Drain time.Duration
	// Budget is the longest that one start may take while a SecretID is at
	// hand, waiting for Vault included; 0 means 60 s. Waiting for a hand-over
	// does not count.
	Budget time.Duration

	// Audit records each step; nil means auditlog.Slog(Logger). An *auditlog.Log
	// is also told what to take out of every event: see [Session.Scrubber].
	Audit auditlog.Recorder
	// Logger is told of progress; nil discards.
	Logger *slog.Logger
	// OnStatus, if not nil, is called at each change of status, from one
	// goroutine at a time. A health check can keep what it is told.
	OnStatus func(Status)

	// LookupEnv reads the environment; nil means os.LookupEnv, and a SecretID
	// found there is then removed from it.
	LookupEnv func(string) (string, bool)
	// Rand is uniform in [0,1), for jitter; nil means math/rand/v2.
	Rand func() float64
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time

	fromEnv string // the variable that SecretID was found in
	// handoverDir is where the deployment leaves SecretIDs if nothing else is
	// said: /run/phoenix, a tmpfs. Only tests change it.
	handoverDir string
}

// SpentPolicy says what to do about a spent or missing SecretID, and about a
// role that is locked out.
type SpentPolicy int

const (
	// WaitForHandover waits, unready, until a new SecretID is in the file.
	WaitForHandover SpentPolicy = iota
	// FailWhenSpent ends with ErrSecretIDSpent, ErrNoSecretID or ErrLockedOut.
	FailWhenSpent
)

// State is what a session is doing.
type State string

// The states.
const (
	Starting State = "starting" // on its way to a session
	Waiting  State = "waiting"  // unready, until a new SecretID is handed over
	Ready    State = "ready"
	Degraded State = "degraded" // works, but something needs attention
	Closed   State = "closed"
)

// Status is a state with its reason.
type Status struct {
	State  State
	Reason error // nil for Starting and Ready
	Since  time.Time
}

var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// EnvName returns the deployment's name of a service's variable:
// EnvName("mcp-hr", "SECRET_ID") is "VAULT_MCP_HR_SECRET_ID".
func EnvName(service, what string) string {
	return "VAULT_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(service)) + "_" + what
}

// FromEnv returns cfg with every empty field filled from the environment, and
// says what is missing or malformed. Start calls it; call it yourself to see
// or change the outcome.
//
// A SecretID is looked for only if cfg names no source of one. If all that is
// found is a variable that holds it, hand-overs are waited for in
// /run/phoenix/SERVICE.env, provided that /run/phoenix exists.
func FromEnv(cfg Config) (Config, error) {
	bad := func(remedy, format string, args ...any) (Config, error) {
		return Config{}, &Error{Step: "read the configuration", Err: fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...)), Remedy: remedy}
	}
	if cfg.LookupEnv == nil {
		cfg.LookupEnv = os.LookupEnv
	}
	env := func(names ...string) string {
		for _, name := range names {
			if value, _ := cfg.LookupEnv(name); value != "" {
				return value
			}
		}
		return ""
	}
	fill := func(field *string, names ...string) {
		if *field == "" {
			*field = env(names...)
		}
	}
	if cfg.Service == "" {
		return bad("set Config.Service to the service's name, like mcp-hr", "no service name")
	}
	if !goodName.MatchString(cfg.Service) {
		return bad("use letters, digits, dots, dashes and underscores", "the service name %q cannot be a role's", cfg.Service)
	}
	if cfg.Role == "" {
		cfg.Role = cfg.Service
	}
	if cfg.Mount == "" {
		cfg.Mount = "approle"
	}
	if !goodName.MatchString(cfg.Role) {
		return bad("use letters, digits, dots, dashes and underscores", "the role name %q is malformed", cfg.Role)
	}
	if err := secrets.CheckPath(cfg.Mount); err != nil {
		return bad(`give the mount without "auth/" and slashes at its ends, like approle`, "the AppRole mount %q is malformed", cfg.Mount)
	}
	if skip, _ := strconv.ParseBool(env("VAULT_SKIP_VERIFY")); skip {
		return bad("unset it, and name Vault's CA in VAULT_CACERT", "VAULT_SKIP_VERIFY would send secrets to anybody")
	}
	fill(&cfg.Addr, "VAULT_ADDR")
	fill(&cfg.Namespace, "VAULT_NAMESPACE")
	if len(cfg.CACertPEM) == 0 {
		fill(&cfg.CACertFile, "VAULT_CACERT")
		if cfg.CACertFile == "" {
			cfg.CACertPEM = []byte(env("VAULT_CACERT_BYTES"))
		}
	}
	fill(&cfg.ServerName, "VAULT_TLS_SERVER_NAME")
	fill(&cfg.ClientCertFile, "VAULT_CLIENT_CERT")
	fill(&cfg.ClientKeyFile, "VAULT_CLIENT_KEY")
	if (cfg.ClientCertFile == "") != (cfg.ClientKeyFile == "") {
		return bad("set both VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or neither", "half a client certificate")
	}
	if text := env("VAULT_CLIENT_TIMEOUT"); cfg.Timeout == 0 && text != "" {
		timeout, err := parseSeconds(text)
		if err != nil || timeout <= 0 {
			return bad("write it as seconds or like 15s", "VAULT_CLIENT_TIMEOUT is not a length of time")
		}
		cfg.Timeout = timeout
	}
	fill(&cfg.RoleID, EnvName(cfg.Service, "ROLE_ID"), "VAULT_ROLE_ID")
	if strings.ContainsFunc(cfg.RoleID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return bad("copy it from the estate file, without spaces or quotes", "the RoleID holds a space or a control character")
	}
	if cfg.handoverDir == "" {
		cfg.handoverDir = "/run/phoenix"
	}
	if cfg.SecretID.IsZero() && cfg.SecretIDFile == "" && cfg.SealedFile == "" {
		cfg.findSecretID(env)
	}
	if cfg.SealedFile != "" {
		fill(&cfg.IdentityFile, "PHOENIX_IDENTITY_FILE")
		if cfg.IdentityFile == "" {
			return bad("set PHOENIX_IDENTITY_FILE to the age identity that opens it", "a sealed file and nothing to open it with")
		}
	}
	// A mistake here must not cost a SecretID.
	if err := cfg.store(nil).Check(); err != nil {
		return Config{}, &Error{Step: "read the configuration", Err: fmt.Errorf("%w: %w", ErrConfig, err)}
	}
	for _, ref := range cfg.Leases {
		if err := secrets.CheckPath(ref); err != nil || strings.Count(ref, "/") < 2 {
			return bad("write it as mount/creds/role, like database/creds/mcp-hr", "the lease %q is malformed", ref)
		}
	}
	if _, err := cfg.certRequests(); err != nil {
		return Config{}, err
	}
	if err := cfg.checkTrust(); err != nil {
		return Config{}, err
	}
	if cfg.Signer != "" {
		if _, _, err := vault.SplitSigner(cfg.Signer); err != nil {
			return bad("write it as mount/sign/key, like transit/sign/mcp-hr", "the signing key %q is malformed", cfg.Signer)
		}
	}
	if cfg.TicketTTL == 0 {
		cfg.TicketTTL = 5 * time.Minute
	}
	if cfg.TicketTTL < time.Second || cfg.TicketTTL > maxTicketTTL {
		return bad("set Config.TicketTTL to the time that a restart takes, or leave it 0 for 5m", "a restart ticket cannot be good for %v, only for 1s to %v", cfg.TicketTTL, maxTicketTTL)
	}
	if cfg.TicketFile != "" && (cfg.TicketFile == cfg.SecretIDFile || cfg.TicketFile == cfg.SealedFile) {
		return bad("give the ticket a file of its own", "TicketFile %s is the SecretID's file", cfg.TicketFile)
	}
	if cfg.MaxWrapTTL == 0 {
		cfg.MaxWrapTTL = 15 * time.Minute
	}
	if cfg.Budget == 0 {
		cfg.Budget = time.Minute
	}
	if cfg.Drain == 0 {
		cfg.Drain = time.Minute
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Audit == nil {
		cfg.Audit = auditlog.Slog(cfg.Logger)
	}
	return cfg, nil
}

// findSecretID fills the first source that the environment offers.
func (cfg *Config) findSecretID(env func(...string) string) {
	if file := env("VAULT_SECRET_ID_FILE"); file != "" {
		cfg.SecretIDFile = file
		return
	}
	if file := env("PHOENIX_SEALED_FILE"); file != "" {
		cfg.SealedFile = file
		return
	}
	handover := filepath.Join(cfg.handoverDir, cfg.Service+".env")
	places := []string{handover, "/run/secrets/" + cfg.Service + "_secret_id"}
	if dir := env("CREDENTIALS_DIRECTORY"); dir != "" {
		places = append([]string{filepath.Join(dir, "secret_id")}, places...)
	}
	for _, place := range places {
		if _, err := os.Stat(place); err == nil {
			cfg.SecretIDFile = place
			return
		}
	}
	for _, name := range []string{EnvName(cfg.Service, "SECRET_ID"), "VAULT_SECRET_ID"} {
		if value := env(name); value != "" {
			cfg.SecretID, cfg.fromEnv = secrets.NewString(value), name
			break
		}
	}
	// Nothing yet, or a value, which works once: wait for the next where
	// "phoenix issue" would put it.
	if info, err := os.Stat(cfg.handoverDir); err == nil && info.IsDir() {
		cfg.SecretIDFile = handover
	}
}

func parseSeconds(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(text)
}

func (cfg *Config) vault() vault.Config {
	return vault.Config{
		Addr: cfg.Addr, Namespace: cfg.Namespace, CACertFile: cfg.CACertFile, CACertPEM: cfg.CACertPEM, ServerName: cfg.ServerName,
		ClientCertFile: cfg.ClientCertFile, ClientKeyFile: cfg.ClientKeyFile, AllowPlaintext: cfg.AllowPlaintext,
		Timeout: cfg.Timeout, DialContext: cfg.DialContext, Logger: cfg.Logger, Rand: cfg.Rand, Erase: secmem.Erases,
	}
}

func (cfg *Config) store(logger *slog.Logger) secrets.Config {
	return secrets.Config{Secrets: cfg.Secrets, Into: cfg.Into, Poll: cfg.Poll, Logger: logger, Rand: cfg.Rand}
}
