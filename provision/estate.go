package provision

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

// An Estate is a deployment as its file declares it, in the order of the file.
// Everything in it has been checked; see the package documentation for the
// file's form. An Estate is not to be changed once it is loaded.
type Estate struct {
	File        string // where it was loaded from
	Owner       string // the marker of what this estate owns in Vault
	Environment string // "stage"; for audit events

	AppRole  AppRole
	KV       []string // the KV v2 mounts
	Pipeline Pipeline
	Issuer   *IssuerRole // nil: there is no resident issuer
	PKI      *PKI        // nil: certificates are none of its business
	Audit    *AuditKeys  // nil: Vault signs no logs

	Secrets  []Secret
	Policies []Policy
	Services []Service

	// The topology: what is where, and who speaks to whom. Provisioning does
	// not look at it.
	Networks []string
	// VaultNetworks are those of the networks that Vault is on; none: the file
	// does not say.
	VaultNetworks []string
	Servers       []Server
	Databases     []Database
	Users         *DatabaseUsers // nil: Vault makes none on the servers
	Keycloak      *Keycloak      // nil: none
	Endpoints     []Endpoint

	dir string // what relative file names start from
}

// AppRole is how the services log in.
type AppRole struct {
	Mount   string // "approle"
	Lockout Lockout
	Login   Login // where a service declares nothing else
	// MaxWrap is the longest life of a wrapped SecretID that the pipeline may
	// ask for. Unwrapped it gets none.
	MaxWrap time.Duration
}

// Lockout is what failed logins of one RoleID lead to.
type Lockout struct {
	Disabled  bool
	Threshold int           // failed logins
	Duration  time.Duration // of the lockout
	Reset     time.Duration // without a failure, after which counting starts anew
}

// Login is what a role grants.
type Login struct {
	SecretIDTTL  time.Duration
	SecretIDUses int
	TokenPeriod  time.Duration
	TokenMax     time.Duration // the explicit maximum, renewals or not
	CIDRs        []netip.Prefix
}

// Pipeline is who issues SecretIDs.
type Pipeline struct {
	Policy string  // its policy's name
	GitHub *GitHub // nil: it comes with a token of its own
}

// GitHub is a JWT role for GitHub Actions.
type GitHub struct {
	Mount       string
	Role        string
	Issuer      string
	Audience    string
	Repository  string        // "owner/name"
	Ref         string        // "refs/heads/main"; "": any
	Environment string        // "stage"; "": any
	TTL         time.Duration // of the session
	// KeyFiles are PEM files of public keys. Without any, Vault fetches the
	// issuer's keys by OpenID Connect discovery.
	KeyFiles []string
}

// A Secret is a KV secret and where its fields come from at first.
type Secret struct {
	Mount, Path string
	Fields      []Field
	line        int
}

// Ref is "mount/path".
func (s Secret) Ref() string { return joinRef(s.Mount, s.Path) }

func joinRef(mount, path string) string {
	if strings.Contains(mount, "/") {
		return mount + "//" + path
	}
	return mount + "/" + path
}

// A Field is one value of a Secret.
type Field struct {
	Name   string
	Origin Origin
}

// An Origin is where an initial value comes from. Exactly one part is set.
type Origin struct {
	Env      string
	File     string
	Generate *Generate
}

// Generate draws Length characters of Alphabet.
type Generate struct {
	Length   int
	Alphabet string // the characters themselves
}

// A Policy is a named policy that services share. It permits reading.
type Policy struct {
	Name string
	Read []Path
}

// A Path is a KV secret that may be read.
type Path struct{ Mount, Path string }

// A Service boots from a RoleID and a SecretID.
type Service struct {
	Name     string
	RoleID   string
	Policies []string // shared ones; its own is generated
	Read     []Path   // what only it reads
	Leases   []string // "database/creds/mcp-hr"
	Login    Login
	Place
}

// PolicyName is the name of the policy that is generated for the service.
func (s Service) PolicyName() string { return "phoenix-" + s.Name }

// EnvName is the deployment's name of one of the service's variables:
// EnvName("SECRET_ID") of mcp-hr is VAULT_MCP_HR_SECRET_ID.
func (s Service) EnvName(what string) string { return envName(s.Name) + what }

func envName(service string) string {
	return "VAULT_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(service)) + "_"
}

// A Place is where something runs and whom it calls.
type Place struct {
	Port      int    // 0: it does not listen
	Health    string // the path of its health check
	Networks  []string
	Calls     []string // services and servers
	SANs      []string // of its certificate: DNS names, addresses, URIs
	Databases []string
}

// A Server takes part in the estate without booting through Phoenix.
type Server struct {
	Name string
	Kind string // "http", "postgres", "mongodb" or "redis"
	Place
}

// serverKinds are the protocols that later checks can speak.
var serverKinds = []string{"http", "postgres", "mongodb", "redis"}

// A Database is on a server.
type Database struct {
	Name   string
	Server string
	Owner  string // its owning role
	Role   string // the role of those who use it
}

// Keycloak names the secrets of a realm's clients.
type Keycloak struct {
	Realm   string
	Clients []KeycloakClient
}

// KeycloakClient is one client and the reference of its secret.
type KeycloakClient struct{ ID, Secret string }

// Service returns the service of that name, or an error that names the nearest.
func (e *Estate) Service(name string) (Service, error) {
	for _, s := range e.Services {
		if s.Name == name {
			return s, nil
		}
	}
	return Service{}, fmt.Errorf("unknown service %q%s", name, yamlfile.Suggest(name, e.ServiceNames()))
}

// ServiceNames lists the services.
func (e *Estate) ServiceNames() []string {
	return namesOf(e.Services, func(s Service) string { return s.Name })
}
