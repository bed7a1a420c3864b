package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/sethvargo/go-retry"

	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// DefaultTimeout bounds one request.
const DefaultTimeout = 15 * time.Second

// Config says where Vault is and how to speak to it. Nothing else is read: no
// environment, no file that is not named here.
type Config struct {
	Addr       string // "https://vault:8200"
	Namespace  string // an enterprise namespace, empty for none
	CACertFile string // PEM; read again when it changes. Empty: CACertPEM
	CACertPEM  []byte // empty: the system's CAs
	ServerName string // the name in Vault's certificate, if not Addr's host

	ClientCertFile string // a TLS client certificate, read for each handshake
	ClientKeyFile  string

	// AllowPlaintext permits http:// to a host that is not this one. Tokens
	// and secrets then cross the network readable.
	AllowPlaintext bool

	// Erase says that requests are to leave no copy of a secret in memory, as
	// far as secmem.Do can: they then run in the goroutine that makes them, over
	// HTTP/1.1. Set it where secmem.Erases.
	Erase bool

	Timeout     time.Duration // for one request that may be repeated; 0 means DefaultTimeout
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	Logger      *slog.Logger   // nil discards
	Rand        func() float64 // uniform in [0,1) for jitter; nil means math/rand/v2
}

// Client speaks to one Vault with one token, or none. It is safe for
// concurrent use. Clients made from each other share connections, what they
// know to be secret, and the pace of renewals.
type Client struct {
	cfg       Config
	log       *slog.Logger
	transport *transport
	scrub     *secrets.Scrubber
	renewals  *pace
	token     secrets.Secret
	// A function, because fmt shows the token in vault/api's own type.
	api func() *api.Client
}

// New returns a Client without a token. It makes no request.
func New(cfg Config) (*Client, error) {
	if err := cfg.checkAddr(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	transport, err := newTransport(cfg, log)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, log: log, transport: transport, scrub: &secrets.Scrubber{}, renewals: &pace{}}
	return c.with(secrets.Secret{}, "")
}

func (c *Config) checkAddr() error {
	if c.Addr == "" {
		return errors.New("vault: no address; set VAULT_ADDR, like https://vault:8200")
	}
	u, err := url.Parse(c.Addr)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("vault: VAULT_ADDR is not an http or https address; write it like https://vault:8200")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("vault: VAULT_ADDR must hold no user, query or fragment; write it like https://vault:8200")
	}
	if u.Scheme == "http" && !c.AllowPlaintext && !loopback(u.Hostname()) {
		return fmt.Errorf("vault: %s would send tokens in the clear; use https", c.Addr)
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// with returns a Client for the same Vault that uses token and asks for
// answers wrapped for wrapTTL, if that is not empty.
func (c *Client) with(token secrets.Secret, wrapTTL string) (*Client, error) {
	client, err := api.NewClient(&api.Config{
		Address: c.cfg.Addr,
		HttpClient: &http.Client{
			Transport:     c.transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Timeout:    c.cfg.Timeout,
		MaxRetries: 0, // a retry is ours to decide
	})
	if err != nil {
		// vault/api parses the environment even when it is given everything.
		return nil, fmt.Errorf("vault: the environment holds a malformed VAULT_ variable, unset it: %w", err)
	}
	// What NewClient took from the environment all the same. The token is put
	// in by the transport.
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	client.SetToken("")
	client.SetNamespace(c.cfg.Namespace)
	client.SetWrappingLookupFunc(func(string, string) string { return wrapTTL })
	c.scrub.Add(token)
	next := *c
	next.token, next.api = token, func() *api.Client { return client }
	return &next, nil
}

// WithToken returns a Client for the same Vault that uses token.
func (c *Client) WithToken(token secrets.Secret) (*Client, error) { return c.with(token, "") }

// patient returns a Client whose requests end with their context alone. It is
// for what is sent once: to stop waiting for its answer loses it.
func (c *Client) patient(token secrets.Secret) (*Client, error) {
	next, err := c.with(token, "")
	if err == nil {
		next.api().SetClientTimeout(0)
	}
	return next, err
}

// Token is the token that the Client uses.
func (c *Client) Token() secrets.Secret { return c.token }

// Scrubber knows every secret that the Client and its relatives have seen.
func (c *Client) Scrubber() *secrets.Scrubber { return c.scrub }

// Addr is Vault's address.
func (c *Client) Addr() string { return c.cfg.Addr }

// Close closes the connections of the Client and its relatives. They may be
// used again.
func (c *Client) Close() { c.transport.close() }

// String names the server and nothing else.
func (c Client) String() string { return "vault client for " + c.cfg.Addr }

// Format writes String for every verb: vault/api's own types show the token.
func (c Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c Client) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Response is an answer of Vault. It shows nothing of itself to fmt and slog.
type Response struct {
	Data          map[string]any // numbers are json.Number
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
	Warnings      []string
	Auth          *Auth
	Wrap          *Wrap
	ServerTime    time.Time // the server's clock when it answered, to the second
}

// Auth is the answer to a login or a token's renewal.
type Auth struct {
	Token     secrets.Secret
	Accessor  string
	Policies  []string
	Metadata  map[string]string
	TTL       time.Duration
	Renewable bool
	Type      string // "service" or "batch"
}

// Wrap is what stands for a wrapped answer.
type Wrap struct {
	Token           secrets.Secret
	Accessor        string // of the wrapping token
	WrappedAccessor string // of what is wrapped: a SecretID's accessor
	TTL             time.Duration
	Created         time.Time
	Age             time.Duration // by the server's own clock, to the second
	CreationPath    string
}

// Format writes Redacted for every verb.
func (r Response) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secrets.Redacted) }

// MarshalText returns Redacted; encoding/json uses it too.
func (r Response) MarshalText() ([]byte, error) { return []byte(secrets.Redacted), nil }

// LogValue is Redacted.
func (r Response) LogValue() slog.Value { return slog.StringValue(secrets.Redacted) }

// do sends one request. A nil Response without an error is an answer without a
// body (204). A 404 with data, as KV gives for a deleted version, is a
// Response.
func (c *Client) do(ctx context.Context, op, path string, send func(context.Context, *api.Logical) (*api.Secret, error)) (*Response, error) {
	return c.try(ctx, op, path, func(ctx context.Context, _ *attempt) (*api.Secret, error) {
		return send(ctx, c.api().Logical())
	})
}

// try is do for a request with secrets in its body, which the attempt hides.
// What it leaves in memory is erased.
func (c *Client) try(ctx context.Context, op, path string, send func(context.Context, *attempt) (*api.Secret, error)) (resp *Response, err error) {
	secmem.Do(func() {
		var answer *api.Secret
		ctx, try := c.watched(ctx)
		if answer, err = send(ctx, try); err != nil {
			err = c.failed(op, path, try, err)
			return
		}
		// vault/api takes a missing path, and a standby that sends it in a
		// circle, for an empty success.
		if status := int(try.status.Load()); answer == nil && status >= 300 {
			err = &Error{Op: op, Path: c.scrub.Scrub(path), Status: status, Class: classify(status, ""), Sent: true}
			return
		}
		if answer != nil {
			resp = c.response(answer)
			resp.ServerTime = try.serverTime()
		}
	})
	return resp, err
}

func (c *Client) response(answer *api.Secret) *Response {
	r := &Response{
		Data:          answer.Data,
		LeaseID:       answer.LeaseID,
		LeaseDuration: time.Duration(answer.LeaseDuration) * time.Second,
		Renewable:     answer.Renewable,
		Warnings:      answer.Warnings,
	}
	if a := answer.Auth; a != nil {
		r.Auth = &Auth{
			Token: secrets.NewString(a.ClientToken), Accessor: a.Accessor, Policies: a.Policies, Metadata: a.Metadata,
			TTL: time.Duration(a.LeaseDuration) * time.Second, Renewable: a.Renewable,
			// vault/api does not decode auth.token_type. By their prefixes
			// (Vault 1.10 and later: hvb., before: b.) batch tokens can be told.
			Type: tokenType(a.ClientToken),
		}
		c.scrub.Add(r.Auth.Token)
	}
	if w := answer.WrapInfo; w != nil {
		r.Wrap = &Wrap{
			Token: secrets.NewString(w.Token), Accessor: w.Accessor, WrappedAccessor: w.WrappedAccessor,
			TTL: time.Duration(w.TTL) * time.Second, Created: w.CreationTime, CreationPath: w.CreationPath,
		}
		c.scrub.Add(r.Wrap.Token)
	}
	return r
}

func tokenType(token string) string {
	if strings.HasPrefix(token, "hvb.") || strings.HasPrefix(token, "b.") {
		return "batch"
	}
	return "service"
}

// Read reads a path; query may be nil. A path that does not exist is
// ErrNotFound.
func (c *Client) Read(ctx context.Context, path string, query url.Values) (*Response, error) {
	return c.do(ctx, "read", path, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ReadWithDataWithContext(ctx, path, query)
	})
}

// List returns the keys below a path, none if the path does not exist.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	resp, err := c.do(ctx, "list", path, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.ListWithContext(ctx, path)
	})
	if errors.Is(err, ErrNotFound) || (err == nil && resp == nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, _ := resp.Data["keys"].([]any)
	keys := make([]string, 0, len(raw))
	for _, key := range raw {
		if name, ok := key.(string); ok {
			keys = append(keys, name)
		}
	}
	return keys, nil
}

// Write writes body to a path (PUT). Its values may be Secrets. The Response is
// nil when there is none.
func (c *Client) Write(ctx context.Context, path string, body map[string]any) (*Response, error) {
	return c.write(ctx, "write", path, body)
}

func (c *Client) write(ctx context.Context, op, path string, body map[string]any) (*Response, error) {
	return c.try(ctx, op, path, func(ctx context.Context, try *attempt) (*api.Secret, error) {
		sent := maps.Clone(body)
		for name, value := range body {
			if secret, ok := value.(secrets.Secret); ok {
				sent[name] = try.hide(secret)
			}
		}
		return c.api().Logical().WriteWithContext(ctx, path, sent)
	})
}

// Delete deletes a path. One that does not exist is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.do(ctx, "delete", path, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.DeleteWithContext(ctx, path)
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// WriteWrapped writes body to a path and asks for the answer to be wrapped for
// ttl (whole seconds). Only the wrapping token comes back.
func (c *Client) WriteWrapped(ctx context.Context, path string, body map[string]any, ttl time.Duration) (*Wrap, error) {
	wrapping, err := c.with(c.token, fmt.Sprintf("%ds", int(ttl.Seconds())))
	if err != nil {
		return nil, err
	}
	resp, err := wrapping.write(ctx, "write wrapped", path, body)
	if err != nil {
		return nil, err
	}
	if resp == nil || resp.Wrap == nil {
		return nil, &Error{Op: "write wrapped", Path: path, Class: ErrServer, Sent: true, Detail: "the answer is not wrapped"}
	}
	return resp.Wrap, nil
}

// Health is the state of the server that answers at the address.
type Health struct {
	Initialized, Sealed, Standby bool
	Version                      string
	ServerTime                   time.Time // to the second
}

// Health asks for the server's state; no token is needed. It is an error only
// if there is no answer.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	ctx, try := c.watched(ctx)
	h, err := c.api().Sys().HealthWithContext(ctx)
	if err != nil {
		return nil, c.failed("ask for health", "sys/health", try, err)
	}
	return &Health{
		Initialized: h.Initialized, Sealed: h.Sealed, Standby: h.Standby || h.PerformanceStandby,
		Version: h.Version, ServerTime: time.Unix(h.ServerTimeUTC, 0),
	}, nil
}

// WaitActive returns nil when the server can serve requests, and otherwise
// ErrSealed, or ErrUnreachable. A standby forwards requests, so it will do.
func (c *Client) WaitActive(ctx context.Context) error {
	return c.Retry(ctx, "wait for Vault", func(ctx context.Context) error {
		h, err := c.Health(ctx)
		switch {
		case err != nil:
			return err
		case !h.Initialized || h.Sealed:
			return &Error{Op: "wait for Vault", Path: "sys/health", Class: ErrSealed, Sent: true}
		}
		return nil
	})
}

// The delays between tries: full jitter below a bound that doubles.
const (
	firstBackoff = 200 * time.Millisecond
	mostBackoff  = 5 * time.Second
)

// Retry calls f until it succeeds, fails for good (see [Retryable]) or ctx
// ends; then the last error of f is returned, together with the context's. It
// logs each new reason to wait.
func (c *Client) Retry(ctx context.Context, what string, f func(context.Context) error) error {
	var last error
	var asked time.Duration
	bound := firstBackoff
	backoff := retry.BackoffFunc(func() (time.Duration, bool) {
		wait := time.Duration(c.cfg.Rand() * float64(bound))
		bound = min(2*bound, mostBackoff)
		return max(wait, min(asked, mostBackoff)), false
	})
	said := ""
	err := retry.Do(ctx, backoff, func(ctx context.Context) error {
		err := f(ctx)
		if err == nil || !Retryable(err) || ctx.Err() != nil {
			return err
		}
		last = err
		var e *Error
		if errors.As(err, &e) {
			asked = e.After
			if reason := e.Class.Error(); reason != said {
				said = reason
				c.log.Warn("waiting for Vault", "for", what, "reason", reason, "detail", e.Detail)
			}
		}
		return retry.RetryableError(err)
	})
	if err != nil && last != nil && ctx.Err() != nil {
		return errors.Join(last, context.Cause(ctx))
	}
	return err
}
