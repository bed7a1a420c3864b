package mongoconn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn/mongoconn"
	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*mongoconn.Config)
		says   string
	}{
		"no server":         {func(c *mongoconn.Config) { c.Addr = "" }, "no server"},
		"a socket":          {func(c *mongoconn.Config) { c.Addr = "/tmp/mongodb-27017.sock" }, "Unix socket"},
		"a socket's name":   {func(c *mongoconn.Config) { c.Addr = "mongodb.sock" }, "Unix socket"},
		"no host":           {func(c *mongoconn.Config) { c.Addr = "m,:27017" }, "empty"},
		"credentials":       {func(c *mongoconn.Config) { c.Addr = "u:p@m" }, "port"},
		"twice":             {func(c *mongoconn.Config) { c.Addr = "m,M:27017" }, "twice"},
		"too many":          {func(c *mongoconn.Config) { c.Addr = strings.Repeat("m,", 60) + "n" }, "twice"},
		"no leases":         {func(c *mongoconn.Config) { c.Leases = nil }, "no source"},
		"nobody vouches":    {func(c *mongoconn.Config) { c.Identity = nil }, "nobody vouches"},
		"any server":        {func(c *mongoconn.Config) { c.TLS.AnyServerName = true }, "any service"},
		"CRLs unseen":       {func(c *mongoconn.Config) { c.TLS.Revocation, c.Roots = &tlsconfig.Revocation{}, x509.NewCertPool() }, "Revocation"},
		"conns":             {func(c *mongoconn.Config) { c.MaxConns = -1 }, "MaxConns"},
		"time":              {func(c *mongoconn.Config) { c.DrainTimeout = -1 }, "negative"},
		"a NUL":             {func(c *mongoconn.Config) { c.AuthSource = "a\x00" }, "NUL"},
		"a long name":       {func(c *mongoconn.Config) { c.ApplicationName = strings.Repeat("x", 129) }, "129"},
		"others learn it":   {func(c *mongoconn.Config) { c.AuthSource = "$external" }, "learn the password"},
		"no acknowledgment": {func(c *mongoconn.Config) { c.WriteConcern = writeconcern.Unacknowledged() }, "silence"},
	} {
		c := mongoconn.Config{Addr: "m", Leases: &leaser{}, Identity: &tlsconfig.Live{}}
		tt.change(&c)
		if _, err := mongoconn.Open(t.Context(), c); !errors.Is(err, mongoconn.ErrConfig) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServersThatAreNotVerified(t *testing.T) {
	t.Parallel()
	ca := testpki.NewCA("root")
	local := []net.IP{net.IPv4(127, 0, 0, 1)}
	pair := func(by *testpki.CA, s testpki.Spec) *testpki.Pair { p := by.Issue(s); return &p }
	for _, tt := range []struct {
		name string
		cfg  realmongo.Config
		kind error
		says string
	}{
		{"for another host", realmongo.Config{Certificate: pair(ca, testpki.Spec{DNS: []string{"elsewhere"}})}, mongoconn.ErrInsecure, "it is not the server"},
		{"with the name in CN alone", realmongo.Config{Certificate: pair(ca, testpki.Spec{CN: "127.0.0.1"})}, mongoconn.ErrInsecure, "it is not the server"},
		{"from another authority", realmongo.Config{Certificate: pair(testpki.NewCA("root"), testpki.Spec{IP: local})}, mongoconn.ErrInsecure, "authority"},
		{"expired", realmongo.Config{Certificate: pair(ca, testpki.Spec{IP: local, NotAfter: time.Now().Add(-time.Minute)})}, mongoconn.ErrInsecure, "expired"},
		{"for clients", realmongo.Config{Certificate: pair(ca, testpki.Spec{IP: local, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})}, mongoconn.ErrInsecure, "usage"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.CA = ca
			m := realmongo.Start(t, tt.cfg) // the tests' own client would not talk to it either
			w := &world{m: m, identity: &tlsconfig.Live{}}
			w.certify("mcp-hr")
			cfg := mongoconn.Config{Addr: m.Addr(), Identity: w.identity, Leases: static("app", "password")}
			refused(t, cfg, tt.kind, tt.says)
			cfg.Roots = x509.NewCertPool()
			cfg.Roots.AddCert(ca.Cert)
			refused(t, cfg, tt.kind, "")
			cfg.Identity = nil
			refused(t, cfg, tt.kind, "")
		})
	}

	t.Run("plaintext", func(t *testing.T) {
		m := realmongo.Start(t, realmongo.Config{NoTLS: true})
		w := &world{m: m, identity: &tlsconfig.Live{}}
		w.certify("mcp-hr")
		refused(t, mongoconn.Config{Addr: m.Addr(), Identity: w.identity, Leases: static("app", "password")}, mongoconn.ErrInsecure, "TLS")
		if strings.Contains(m.Log(), "hello") || strings.Contains(m.Log(), "isMaster") {
			t.Error("something was said in the clear")
		}
	})
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	t.Run("TLS 1.2", func(t *testing.T) {
		mid := newMiddle(t, w.m)
		mid.config.MaxVersion = tls.VersionTLS12
		cfg := w.config()
		cfg.Addr = mid.addr
		refused(t, cfg, mongoconn.ErrInsecure, "version")
		cfg.TLS.MinVersion = tls.VersionTLS12 // somebody has said so
		open(t, cfg)
	})
	t.Run("refuses our certificate", func(t *testing.T) {
		cfg := w.config()
		stranger := &world{m: realmongo.Start(t, realmongo.Config{}), identity: &tlsconfig.Live{}}
		stranger.certify("mcp-hr")
		cfg.Identity, cfg.Roots = stranger.identity, x509.NewCertPool()
		cfg.Roots.AddCert(w.m.CA().Cert)
		refused(t, cfg, mongoconn.ErrRefused, "CA file")
		cfg.Identity = nil
		refused(t, cfg, mongoconn.ErrRefused, "CA file")
	})
	t.Run("we have no certificate yet", func(t *testing.T) {
		cfg := w.config()
		cfg.Identity = &tlsconfig.Live{}
		refused(t, cfg, mongoconn.ErrInsecure, "")
	})
	t.Run("nobody there", func(t *testing.T) {
		cfg := w.config()
		cfg.Addr = "127.0.0.1:1"
		refused(t, cfg, mongoconn.ErrUnavailable, "refused")
	})
}

// static is a source of one lease.
func static(name, password string) secrets.LeaseSource {
	return &fixed{newLease(name, password, time.Hour)}
}

type fixed struct{ lease *secrets.Lease }

func (f *fixed) Current(context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	return f.lease, f.lease.Hold(), nil, nil
}
func (f *fixed) Replace(context.Context, *secrets.Lease) error {
	return errors.New("there is no other")
}

func TestLeasesThatDoNotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.m.AddUser(t, "app", "password")
	for _, tt := range []struct {
		lease *secrets.Lease
		kind  error
		says  string
	}{
		{newLease("app", "wrong password", time.Hour), mongoconn.ErrRefused, "Authentication failed"},
		{newLease("nobody", "password", time.Hour), mongoconn.ErrRefused, "Authentication failed"},
		{newLease("app", "", time.Hour), mongoconn.ErrConfig, "no username and password"},
		{newLease("", "password", time.Hour), mongoconn.ErrConfig, "no username and password"},
		{newLease("app", "password", 0), mongoconn.ErrConfig, "over already"},
		{newLease("app", "a password with\x00", time.Hour), mongoconn.ErrConfig, ""},
	} {
		cfg := w.config()
		cfg.Leases = &fixed{tt.lease}
		refused(t, cfg, tt.kind, tt.says)
		if tt.lease.Holders() != 0 {
			t.Errorf("%s is held", tt.lease.Username())
		}
	}
	cfg := w.config()
	refused(t, cfg, mongoconn.ErrUnavailable, "there is no lease")
	cfg.Leases = static("app", "password")
	cfg.Admit = func(context.Context, *mongo.Client) error { return errors.New("it may do too much") }
	refused(t, cfg, mongoconn.ErrAdmit, "app: it may do too much")
}

// A server that cannot prove that it knows the password's verifier is not
// believed, and one that wants the password itself does not get it.
func TestServersThatAskForLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	mid := newMiddle(t, w.m)
	cfg := w.config()
	cfg.Addr = mid.addr
	hello := func(extra ...bson.E) bson.D {
		return append(bson.D{{Key: "ok", Value: 1.0}, {Key: "isWritablePrimary", Value: true}, {Key: "ismaster", Value: true}, {Key: "helloOk", Value: true},
			{Key: "minWireVersion", Value: 0}, {Key: "maxWireVersion", Value: 21}, {Key: "maxBsonObjectSize", Value: 16777216},
			{Key: "maxMessageSizeBytes", Value: 48000000}, {Key: "maxWriteBatchSize", Value: 100000}}, extra...)
	}
	isHello := func(command string) bool { return command == "hello" || strings.EqualFold(command, "ismaster") }
	done := bson.D{{Key: "conversationId", Value: 1}, {Key: "done", Value: true}, {Key: "payload", Value: bson.Binary{}}, {Key: "ok", Value: 1.0}}
	for name, answer := range map[string]func(string) bson.D{
		"done at once": func(command string) bson.D {
			if isHello(command) {
				return hello(bson.E{Key: "speculativeAuthenticate", Value: done})
			}
			return bson.D{{Key: "ok", Value: 1.0}}
		},
		"done at the first step": func(command string) bson.D {
			switch {
			case isHello(command):
				return hello()
			case command == "saslStart":
				return done
			}
			return bson.D{{Key: "ok", Value: 1.0}}
		},
		"few iterations": func(command string) bson.D {
			switch {
			case isHello(command):
				return hello()
			case command == "saslStart":
				return bson.D{{Key: "conversationId", Value: 1}, {Key: "done", Value: false}, {Key: "payload", Value: []byte("r=x,s=c2FsdA==,i=1")}, {Key: "ok", Value: 1.0}}
			}
			return bson.D{{Key: "ok", Value: 1.0}}
		},
	} {
		mid.on(answer)
		db, err := mongoconn.Open(t.Context(), cfg)
		if !errors.Is(err, mongoconn.ErrInsecure) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			db.Close(t.Context()) //nolint:errcheck // the test has failed
		}
	}
	mid.on(func(command string) bson.D {
		switch {
		case isHello(command):
			return hello(bson.E{Key: "saslSupportedMechs", Value: bson.A{"PLAIN", "SCRAM-SHA-1"}})
		case command == "saslStart":
			return failure(334, "MechanismUnavailable", "PLAIN only")
		}
		return nil
	})
	refused(t, cfg, mongoconn.ErrRefused, "PLAIN only")
}

// A server that belongs to a replica set names its members. Those that are not
// in Addr are not called.
func TestOtherMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	w.leases.next()
	evil, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the test
	if err != nil {
		t.Fatal(err)
	}
	var called atomic.Int64
	go func() {
		for {
			conn, err := evil.Accept()
			if err != nil {
				return
			}
			called.Add(1)
			conn.Close()
		}
	}()
	defer evil.Close()
	mid := newMiddle(t, w.m)
	mid.on(func(command string) bson.D {
		if command != "hello" && !strings.EqualFold(command, "ismaster") {
			return nil
		}
		return bson.D{{Key: "ok", Value: 1.0}, {Key: "setName", Value: "rs0"}, {Key: "hosts", Value: bson.A{evil.Addr().String()}}, {Key: "primary", Value: evil.Addr().String()},
			{Key: "me", Value: mid.addr}, {Key: "secondary", Value: true}, {Key: "helloOk", Value: true}, {Key: "minWireVersion", Value: 0}, {Key: "maxWireVersion", Value: 21}}
	})
	cfg := w.config()
	cfg.Addr, cfg.ReplicaSet, cfg.ConnectTimeout = mid.addr, "rs0", 3*time.Second
	refused(t, cfg, mongoconn.ErrInsecure, "not in Addr")
	if n := called.Load(); n != 0 {
		t.Errorf("it was called %d times", n)
	}
}

// What a server says cannot forge a log line, nor show what we know.
func TestHostileErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realmongo.Config{})
	lease := w.leases.next()
	mid := newMiddle(t, w.m)
	cfg := w.config()
	cfg.Addr, cfg.Scrubber = mid.addr, &secrets.Scrubber{}
	cfg.Scrubber.Add(secrets.NewString("another value of ours"))
	db := open(t, cfg)
	password := lease.Password().Reveal()
	w.leases.mu.Lock()
	w.leases.fails = errors.New("Vault is away")
	w.leases.mu.Unlock()
	text := "\x1b[2J\r\nlevel=info msg=fine \u202e " + password + " " + base64.StdEncoding.EncodeToString([]byte(password)) + " another value of ours " + strings.Repeat("x", 1<<20)
	mid.on(func(command string) bson.D {
		if command == "find" || command == "saslStart" || command == "ping" {
			return failure(18, "AuthenticationFailed\n", text)
		}
		return nil
	})
	err := db.Use(t.Context(), func(ctx context.Context, client *mongo.Client) error {
		return client.Database("test").Collection("c").FindOne(ctx, bson.D{}).Err()
	})
	w.leases.mu.Lock()
	w.leases.fails = nil
	w.leases.mu.Unlock()
	w.leases.next() // whose login fails in the same way
	e := w.events.await(t, "database.rotation", auditlog.Failure, 2)
	for _, shown := range []string{fmt.Sprint(err), e.Attributes["reason"], fmt.Sprint(db.Stats().LastError)} {
		if strings.ContainsAny(shown, "\x1b\r\n\u202e") || strings.Contains(shown, password) || strings.Contains(shown, "another value") || len(shown) > 3000 {
			t.Errorf("%d bytes: %.300q", len(shown), shown)
		}
	}
	if !errors.Is(err, mongoconn.ErrRefused) && !errors.Is(err, mongoconn.ErrUnavailable) {
		t.Error(err)
	}
	mid.on(nil)
	w.events.await(t, "database.rotation", "", 1)
}
