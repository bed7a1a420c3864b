package dbconn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// refused opens with cfg and wants an error of that kind whose text has a part.
func refused(t *testing.T, cfg dbconn.Config, kind error, part string) error {
	t.Helper()
	db, err := dbconn.Open(t.Context(), cfg)
	if err == nil {
		db.Close(t.Context())
		t.Fatal("opened")
	}
	var e *dbconn.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.Contains(err.Error(), part) {
		t.Errorf("%v, want %v with %q", err, kind, part)
	}
	return err
}

func TestConfigIsChecked(t *testing.T) {
	good := func() dbconn.Config {
		return dbconn.Config{Addr: "db:5432", Database: "d", Leases: dbconn.Fixed("u", secrets.NewString("secret")), Certs: &issuer{}}
	}
	tests := map[string]func(*dbconn.Config){
		"no server":            func(c *dbconn.Config) { c.Addr = "" },
		"an empty host":        func(c *dbconn.Config) { c.Addr = "db:5432,:5432" },
		"a Unix socket":        func(c *dbconn.Config) { c.Addr = "/var/run/postgresql" },
		"an abstract socket":   func(c *dbconn.Config) { c.Addr = "@pg" },
		"a socket second":      func(c *dbconn.Config) { c.Addr = "db:5432,/var/run/postgresql" },
		"a Windows path":       func(c *dbconn.Config) { c.Addr = `C:\pg` },
		"a URL":                func(c *dbconn.Config) { c.Addr = "postgres://db:5432/x" },
		"a port of letters":    func(c *dbconn.Config) { c.Addr = "db:http" },
		"port 0":               func(c *dbconn.Config) { c.Addr = "db:0" },
		"a user in the host":   func(c *dbconn.Config) { c.Addr = "u@db:5432" },
		"no database":          func(c *dbconn.Config) { c.Database = "" },
		"no leases":            func(c *dbconn.Config) { c.Leases = nil },
		"nobody vouches":       func(c *dbconn.Config) { c.Certs = nil },
		"many connections":     func(c *dbconn.Config) { c.MaxConns = 1 << 20 },
		"negative connections": func(c *dbconn.Config) { c.MaxConns = -1 },
		"negative time":        func(c *dbconn.Config) { c.DrainTimeout = -1 },
		"a NUL":                func(c *dbconn.Config) { c.ApplicationName = "a\x00b" },
		"unknown attributes":   func(c *dbconn.Config) { c.TargetSessionAttrs = "master" },
		"a server's setting":   func(c *dbconn.Config) { c.Settings = []string{"row_security"} },
		"a setting twice":      func(c *dbconn.Config) { c.Settings = []string{"app.a", "app.a"} },
		"any server":           func(c *dbconn.Config) { c.TLS.AnyServerName = true },
		"CRLs unseen":          func(c *dbconn.Config) { c.TLS.Revocation, c.Roots = &tlsconfig.Revocation{}, x509.NewCertPool() },
		"CRLs with nobody": func(c *dbconn.Config) {
			c.TLS.Revocation, c.Roots, c.Certs = &tlsconfig.Revocation{}, x509.NewCertPool(), nil
		},
		"a line in the name": func(c *dbconn.Config) { c.Database = "d\nlevel=error" },
		"a setting with SQL": func(c *dbconn.Config) { c.Settings = []string{"app.a'; --"} },
	}
	for name, breaks := range tests {
		t.Run(name, func(t *testing.T) {
			c := good()
			breaks(&c)
			refused(t, c, dbconn.ErrConfig, "")
		})
	}
}

// The environment has no say, not even where pgx would stop at it.
func TestEnvironmentIsIgnored(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	lease := w.leases.next()
	for name, value := range map[string]string{
		"PGHOST": "elsewhere.invalid", "PGPORT": "1", "PGUSER": "postgres", "PGPASSWORD": "x", "PGDATABASE": "template1", "PGSSLMODE": "disable",
		"PGOPTIONS": "-c row_security=off", "PGSERVICE": "none-such", "PGSERVICEFILE": "/nowhere", "PGSSLROOTCERT": "/nowhere", "PGSSLCERT": "/nowhere",
		"PGSSLKEY": "/nowhere", "PGAPPNAME": "other", "PGTZ": "Mars", "PGTARGETSESSIONATTRS": "standby", "PGSSLCERTMODE": "disable", "PGSSLSNI": "0",
		"PGREQUIREAUTH": "none", "PGCHANNELBINDING": "disable", "PGSSLNEGOTIATION": "direct", "PGCONNECT_TIMEOUT": "x", "PGMINPROTOCOLVERSION": "9", "PGPASSFILE": "/nowhere",
	} {
		t.Setenv(name, value)
	}
	db := open(t, w.config())
	var user, database, app, zone, rls string
	if err := db.QueryRow(t.Context(), "SELECT session_user, current_database(), current_setting('application_name'), current_setting('timezone'), current_setting('row_security')").
		Scan(&user, &database, &app, &zone, &rls); err != nil {
		t.Fatal(err)
	}
	if got := []string{user, database, app, zone, rls}; !slices.Equal(got, []string{lease.Username(), "postgres", "dbconn.test", "UTC", "on"}) {
		t.Errorf("%q", got)
	}
}

func TestServersThatAreNotVerified(t *testing.T) {
	ca := testpki.NewCA("test")
	server := func(t *testing.T, spec testpki.Spec, by *testpki.CA) *world {
		pair := by.Issue(spec)
		w := newWorld(t, realpg.Config{CA: ca, Certificate: &pair})
		w.leases.next()
		return w
	}
	local := []net.IP{net.IPv4(127, 0, 0, 1)}
	t.Run("another host's", func(t *testing.T) {
		w := server(t, testpki.Spec{CN: "127.0.0.1", DNS: []string{"elsewhere"}}, ca)
		refused(t, w.config(), dbconn.ErrInsecure, "it is not the server")
	})
	t.Run("another authority's", func(t *testing.T) {
		w := server(t, testpki.Spec{IP: local}, testpki.NewCA("other"))
		refused(t, w.config(), dbconn.ErrInsecure, "authority")
	})
	t.Run("expired", func(t *testing.T) {
		w := server(t, testpki.Spec{IP: local, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, ca)
		refused(t, w.config(), dbconn.ErrInsecure, "expired")
	})
	t.Run("another authority's, without client certificates", func(t *testing.T) {
		w := server(t, testpki.Spec{IP: local}, testpki.NewCA("other"))
		c := w.config()
		c.Certs, c.Roots = nil, w.roots()
		refused(t, c, dbconn.ErrInsecure, "authority")
	})
	t.Run("another host's, with roots of its own", func(t *testing.T) {
		w := server(t, testpki.Spec{DNS: []string{"elsewhere"}}, ca)
		c := w.config()
		c.Roots = w.roots()
		refused(t, c, dbconn.ErrInsecure, "127.0.0.1 because it doesn't contain any IP SANs")
	})
	t.Run("without TLS", func(t *testing.T) {
		w := newWorld(t, realpg.Config{NoTLS: true, HBA: []string{"host all all all scram-sha-256"}})
		w.leases.next()
		refused(t, w.config(), dbconn.ErrInsecure, "refused TLS")
	})
	t.Run("TLS 1.2 alone", func(t *testing.T) {
		w := newWorld(t, realpg.Config{Settings: map[string]string{"ssl_max_protocol_version": "'TLSv1.2'"}})
		w.leases.next()
		refused(t, w.config(), dbconn.ErrInsecure, "ssl_max_protocol_version")
		if w.leases.made != 1 {
			t.Error("other credentials were asked for, which could not help")
		}
	})
	t.Run("a proxy that answers N", func(t *testing.T) {
		w := newWorld(t, realpg.Config{})
		w.leases.next()
		c := w.config()
		c.Addr = hostile(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 8))
			_, _ = conn.Write([]byte("N"))
			if n, _ := conn.Read(make([]byte, 100)); n > 0 {
				t.Error("it went on in plaintext")
			}
		})
		refused(t, c, dbconn.ErrInsecure, "refused TLS")
	})
	// A host that cannot be verified does not become a reason to try the next
	// one with less: each is verified by its own name.
	t.Run("two hosts with different certificates", func(t *testing.T) {
		bad := server(t, testpki.Spec{DNS: []string{"elsewhere"}}, ca)
		good := server(t, testpki.Spec{DNS: []string{"localhost"}}, ca)
		c := good.config()
		c.Addr = bad.pg.Addr() + "," + strings.Replace(good.pg.Addr(), "127.0.0.1", "localhost", 1)
		db := open(t, c)
		if s := user(t, db); !strings.HasPrefix(s, "v-app-") {
			t.Error(s)
		}
		c.Addr = bad.pg.Addr() + "," + good.pg.Addr() // whose certificate has no address
		refused(t, c, dbconn.ErrInsecure, "it is not the server")
	})
}

// Other ways to log in than SCRAM over a bound channel would give the server
// more than a proof, or bind the password to nobody.
func TestServersThatAskForLess(t *testing.T) {
	for name, hba := range map[string]string{
		"trust": "hostssl all all all trust", "password": "hostssl all all all password", "cert": "hostssl all all all cert",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, realpg.Config{HBA: []string{hba}})
			w.leases.next()
			refused(t, w.config(), dbconn.ErrInsecure, "")
		})
	}
	t.Run("another authority for clients", func(t *testing.T) {
		w := newWorld(t, realpg.Config{})
		w.leases.next()
		c := w.config()
		c.Certs, c.Roots = &issuer{ca: testpki.NewCA("other")}, w.roots()
		// Whether the server's alert arrives before it hangs up is chance.
		db, err := dbconn.Open(t.Context(), c)
		if err == nil {
			db.Close(t.Context())
		}
		if !errors.Is(err, dbconn.ErrRefused) && !errors.Is(err, dbconn.ErrUnavailable) || !strings.Contains(err.Error(), "ssl_ca_file") {
			t.Errorf("%v, want a refusal that names ssl_ca_file", err)
		}
	})
	t.Run("a line that is missing", func(t *testing.T) {
		w := newWorld(t, realpg.Config{HBA: []string{"hostssl all nobody all scram-sha-256"}})
		w.leases.next()
		refused(t, w.config(), dbconn.ErrRefused, "pg_hba.conf")
	})
}

// A server that is too busy to go on with the login is not one that cannot be
// trusted.
func TestServersThatAreSlow(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	w.leases.next()
	pair := w.pg.CA().Issue(testpki.Spec{IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
	certificate := tls.Certificate{PrivateKey: pair.Key}
	for _, c := range pair.Chain {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	c := w.config()
	c.ConnectTimeout = 2 * time.Second
	c.Addr = hostile(t, func(conn net.Conn) {
		_, _ = io.ReadFull(conn, make([]byte, 8))
		_, _ = conn.Write([]byte("S"))
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"postgresql"}})
		_, _ = secure.Read(make([]byte, 1000))
		_, _ = secure.Write([]byte("R\x00\x00\x00\x1d\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00\x00"))
		_, _ = io.Copy(io.Discard, secure) // until the client gives up
	})
	refused(t, c, dbconn.ErrUnavailable, "in time")
}

// What a hostile server says reaches no log as it is.
func TestHostileErrors(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	other := secrets.NewString("another-secret-value")
	known := &secrets.Scrubber{}
	known.Add(other)
	raise := func() string {
		text := "no\r\n2026 level=info msg=forged \x1b[31m\u202e " + w.leases.lease.Password().Reveal() + " another-secret-value " + strings.Repeat("x", 1500)
		return fmt.Sprintf("DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = '%s', DETAIL = '%[1]s', HINT = '%[1]s'; END $$", text)
	}
	leaks := func(err error) bool {
		text := fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err))
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			t.Fatalf("no error of the server: %.100v", err)
		}
		text += fmt.Sprintf("%+v", *pg)
		return strings.Contains(text, w.leases.lease.Password().Reveal()) || strings.Contains(text, "another-secret-value")
	}
	w.leases.next()
	c := w.config()
	c.Scrubber = known
	good := c
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, raise())
		return err
	}
	_, err := dbconn.Open(t.Context(), c)
	if err == nil || leaks(err) {
		t.Error("a secret shows")
	}
	if text := err.Error(); strings.ContainsAny(text, "\r\n\x1b\u202e") || len(text) > 1500 {
		t.Errorf("%d bytes: %.100q", len(text), text)
	}

	db := open(t, good)
	if _, err := db.Exec(t.Context(), raise()); leaks(err) {
		t.Error("a secret shows in a statement's error")
	}
	if err := db.QueryRow(t.Context(), raise()).Scan(); leaks(err) {
		t.Error("a secret shows in a row's error")
	}
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	batch := &pgx.Batch{}
	batch.Queue(raise())
	if err := tx.SendBatch(t.Context(), batch).Close(); leaks(err) {
		t.Error("a secret shows in a batch's error")
	}
}

// hostile serves one handler on a port, and returns its address.
func hostile(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			handle(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// What is wrong with a lease, or with its certificate, keeps it from the start.
func TestLeasesThatDoNotWork(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	reset := func() { w.leases.create, w.leases.ttl, w.certs.fails, w.certs.breaks = createRole, 0, nil, nil }
	tests := []struct {
		name   string
		breaks func()
		kind   error
		part   string
	}{
		{"zero seconds", func() { w.leases.ttl = -1 }, dbconn.ErrConfig, "default_ttl"},
		{"no login", func() { w.leases.create = `CREATE ROLE "%[1]s" PASSWORD '%[2]s'` }, dbconn.ErrRefused, "not permitted to log in"},
		{"another password", func() { w.leases.create = `CREATE ROLE "%[1]s" LOGIN PASSWORD 'x%[2]s'` }, dbconn.ErrRefused, "password"},
		{"no role", func() { w.leases.create = `SELECT '%[1]s%[2]s'` }, dbconn.ErrRefused, ""},
		{"a limit", func() { w.leases.create = createRole + ` CONNECTION LIMIT 3` }, dbconn.ErrConfig, "the role allows 3"},
		{"no certificate", func() { w.certs.fails = errors.New("denied") }, dbconn.ErrInsecure, "denied"},
		{"another's certificate", func() { w.certs.breaks = func(s testpki.Spec) testpki.Spec { s.CN = "other"; return s } }, dbconn.ErrInsecure, `"other"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reset()
			tt.breaks()
			w.leases.next()
			err := refused(t, w.config(), tt.kind, tt.part)
			if w.leases.lease.Holders() != 0 {
				t.Error("the lease is still held")
			}
			if strings.Contains(fmt.Sprintf("%+v %#v", err, err), w.leases.lease.Password().Reveal()) {
				t.Error("the password shows")
			}
		})
	}
	// The same for a lease that comes later: the one in use stays, the event says
	// why, and the next good one is taken.
	reset()
	good := w.leases.next()
	db := open(t, w.config())
	failures := 0
	for _, tt := range tests {
		reset()
		tt.breaks()
		w.leases.next()
		failures++
		e := w.events.await(t, "database.rotation", auditlog.Failure, failures)
		for range 2 { // the pool tries the lease before again by itself
			if !strings.Contains(e.Attributes["reason"], tt.part) {
				failures++
				e = w.events.await(t, "database.rotation", auditlog.Failure, failures)
			}
		}
		if !strings.Contains(e.Attributes["reason"], tt.part) || e.Attributes["user"] != good.Username() {
			t.Errorf("%s: %+v", tt.name, e)
		}
		if name := user(t, db); name != good.Username() || db.Stats().Generation != 1 {
			t.Errorf("%s: now as %s", tt.name, name)
		}
		if !w.leases.lease.Doubted() {
			t.Errorf("%s: nobody told the source", tt.name)
		}
		failures = len(w.events.failures())
	}
	reset()
	better := w.leases.next()
	w.events.await(t, "database.rotation", "", 1)
	if name := user(t, db); name != better.Username() || better.Doubted() {
		t.Errorf("still as %s", name)
	}
}
