package dbconn_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
)

func TestParseDSN(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:p%40ss@db:5433/hr?sslmode=verify-full&application_name=a&connect_timeout=7&sslrootcert=/ca.pem&channel_binding=require",
		"postgresql://u:p%40ss@db:5433/hr?sslmode=verify-full&application_name=a&connect_timeout=7&sslrootcert=%2Fca.pem",
		"postgres:///hr?host=db&port=5433&user=u&password=p%40ss&sslmode=verify-full&application_name=a&connect_timeout=7&sslrootcert=/ca.pem",
		`host=db port = 5433 user='u' password=p@ss dbname=hr sslmode=verify-full application_name=a connect_timeout=7 sslrootcert='/ca.pem'`,
		`host=db port=5433 user=u password=p\@ss database=hr sslmode=verify-full application_name='\a' connect_timeout=7 sslrootcert=/ca.pem`,
	} {
		d, err := dbconn.ParseDSN(dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if d.Addr != "db:5433" || d.Database != "hr" || d.User != "u" || d.Password.Reveal() != "p@ss" || d.ApplicationName != "a" ||
			d.ConnectTimeout != 7*time.Second || d.RootCert != "/ca.pem" || d.String() != "db:5433/hr" {
			t.Errorf("%s: %+v", dsn, *d)
		}
	}
	for dsn, addr := range map[string]string{
		"postgres://a,b:2,[::1]:3/d?sslmode=verify-full":                                                           "a:5432,b:2,[::1]:3",
		"host=a,b,::1 port=1,2,3 dbname=d sslmode=verify-full":                                                     "a:1,b:2,[::1]:3",
		"host=a,b port=7 dbname=d sslmode=verify-full":                                                             "a:7,b:7",
		"postgres://a/d?sslmode=verify-full&sslnegotiation=postgres&gssencmode=disable&require_auth=scram-sha-256": "a:5432",
	} {
		if d, err := dbconn.ParseDSN(dsn); err != nil || d.Addr != addr {
			t.Errorf("%s: %v, %v", dsn, d, err)
		}
	}
}

// Every way to make a connection that is not verified in full, or to take
// something from elsewhere, is refused with the reason.
func TestDSNTraps(t *testing.T) {
	const ok = "postgres://u:hunter2secret@db/hr?sslmode=verify-full"
	tests := []struct{ name, dsn, part string }{
		{"nothing", "", "sslmode"},
		{"no sslmode", "postgres://u:hunter2secret@db/hr", "prefer"},
		{"sslmode=disable", "postgres://u:hunter2secret@db/hr?sslmode=disable", "sslmode"},
		{"sslmode=allow", "host=db dbname=hr sslmode=allow", "sslmode"},
		{"sslmode=prefer", "host=db dbname=hr sslmode=prefer", "sslmode"},
		{"sslmode=require", "host=db dbname=hr sslmode=require", "sslmode"},
		{"sslmode=verify-ca", "host=db dbname=hr sslmode=verify-ca", "sslmode"},
		{"sslmode in capitals", "host=db dbname=hr sslmode=VERIFY-FULL", "sslmode"},
		{"sslmode=verify-full, then disable", ok + "&sslmode=disable", "twice"},
		{"the same twice", ok + "&sslmode=verify-full", "twice"},
		{"an escaped name twice", ok + "&sslmod%65=disable", "twice"},
		{"host twice", ok + "&host=/var/run/postgresql", "twice"},
		{"database by both names", "host=db dbname=a database=b sslmode=verify-full", "twice"},
		{"ssl=true", ok + "&ssl=true", "ssl=true"},
		{"requiressl", ok + "&requiressl=1", "requiressl"},
		{"a socket", "host=/var/run/postgresql dbname=hr sslmode=verify-full", "Unix socket"},
		{"a socket in a URL", "postgres://%2Fvar%2Frun/hr?sslmode=verify-full", "Unix socket"},
		{"a socket first", "host=/run,db dbname=hr sslmode=verify-full", "Unix socket"},
		{"a socket last", "postgres://db,%2Frun/hr?sslmode=verify-full", "Unix socket"},
		{"an abstract socket", "host=@pg dbname=hr sslmode=verify-full", "Unix socket"},
		{"a Windows path", `host=C:\\pg dbname=hr sslmode=verify-full`, "a path"},
		{"no host", "dbname=hr sslmode=verify-full", "PGHOST"},
		{"an empty host", "host=db,,x dbname=hr sslmode=verify-full", "empty host"},
		{"no host in a URL", "postgres:///hr?sslmode=verify-full", "PGHOST"},
		{"no database", "postgres://db?sslmode=verify-full", "PGDATABASE"},
		{"options", ok + "&options=-c%20row_security%3Doff", "row_security"},
		{"row_security", ok + "&row_security=off", "row_security"},
		{"role", ok + "&role=postgres", "role"},
		{"session_authorization", ok + "&session_authorization=postgres", "session_authorization"},
		{"search_path", ok + "&search_path=evil", "search_path"},
		{"replication", ok + "&replication=database", "row-level security"},
		{"service", ok + "&service=x", "file"},
		{"servicefile", ok + "&servicefile=/tmp/x", "file"},
		{"passfile", ok + "&passfile=/tmp/x", "disk"},
		{"hostaddr", ok + "&hostaddr=10.0.0.1", "two things"},
		{"sslcertmode=disable", ok + "&sslcertmode=disable", "sslcertmode"},
		{"channel_binding=disable", ok + "&channel_binding=disable", "channel_binding"},
		{"channel_binding=prefer", ok + "&channel_binding=prefer", "channel_binding"},
		{"require_auth=password", ok + "&require_auth=password", "require_auth"},
		{"require_auth negated", ok + "&require_auth=!scram-sha-256", "require_auth"},
		{"gssencmode=prefer", ok + "&gssencmode=prefer", "gssencmode"},
		{"old TLS", ok + "&ssl_min_protocol_version=TLSv1", "TLS"},
		{"a setting of the session", ok + "&work_mem=1GB", "not known"},
		{"a pgx setting", ok + "&default_query_exec_mode=simple_protocol", "pgx"},
		{"half a certificate", ok + "&sslcert=/c.pem", "sslkey"},
		{"a port of letters", "postgres://u:hunter2secret@db:x/hr?sslmode=verify-full", "port"},
		{"a password with a colon and an at sign lost", "postgres://u@db:hunter2secret:5432/hr?sslmode=verify-full", "colon"},
		{"more ports than hosts", "host=a port=1,2 dbname=d sslmode=verify-full", "ports"},
		{"a bad timeout", ok + "&connect_timeout=soon", "connect_timeout"},
		{"bad attributes", ok + "&target_session_attrs=master", "target_session_attrs"},
		{"a bad escape", "postgres://u:hunter2secret%zz@db/hr?sslmode=verify-full", "escape"},
		{"a NUL", ok + "\x00", "NUL"},
		{"an escaped NUL", ok + "&application_name=a%00user", "escape"},
		{"an open quote", "host=db password='hunter2secret dbname=hr sslmode=verify-full", "quoted"},
		{"a lost word", "host=db password=x hunter2secret dbname=hr sslmode=verify-full", "keywords"},
		{"an ending backslash", `host=db dbname=hr sslmode=verify-full password=hunter2secret\`, "backslash"},
		{"a query without a value", ok + "&hunter2secret", "query"},
		{"a password with a slash", "postgres://u:1234/hunter2secret@db/hr?sslmode=verify-full", "%2F"},
		{"a password with a question mark", "postgres://u:1234?hunter2secret@db/hr?sslmode=verify-full", "not known"},
		{"a line in the database", "host=db dbname='hr\nlevel=error' sslmode=verify-full", "control"},
		{"an escape in the database", "postgres://db/hr%1b[2J?sslmode=verify-full", "control"},
		{"a line in the user", "postgres://u%0Aadmin@db/hr?sslmode=verify-full", "control"},
		{"a line in the name", ok + "&application_name=a%0Ab", "control"},
		{"text that runs backwards", ok + "&application_name=a%E2%80%AEb", "control"},
		{"a semicolon", "postgres://db/hr?sslmode=verify-full;sslmode=disable", "sslmode"},
		{"a name in capitals", "postgres://db/hr?SSLMODE=verify-full", "not known"},
		{"a blank before the scheme", " " + ok, "not known"},
		{"a scheme in capitals", "POSTGRES://db/hr?sslmode=verify-full", "not known"},
		{"a comment", "host=db dbname=hr sslmode=verify-full #sslmode=disable", "not known"},
		{"a name with a blank", ok + "&sslmode%20=disable", "not known"},
		{"a network zone", "postgres://[fe80::1%25eth0]/hr?sslmode=verify-full", "IPv6"},
		{"a host with a blank", "postgres://db%20evil/hr?sslmode=verify-full", "characters"},
		{"a host with a line", "host='db\nevil' dbname=hr sslmode=verify-full", "control"},
		{"a host of two by a backslash", `host=/run\,db dbname=hr sslmode=verify-full`, "Unix socket"},
		{"an escaped socket second", "postgres://db,%40pg/hr?sslmode=verify-full", "Unix socket"},
		{"an empty sslmode", "postgres://db/hr?sslmode=", "sslmode"},
		{"a mode in quotes", `host=db dbname=hr sslmode="verify-full"`, "sslmode"},
		{"another scheme", "mysql://u:hunter2secret@db/hr?sslmode=verify-full", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := dbconn.ParseDSN(tt.dsn)
			if err == nil {
				t.Fatalf("accepted as %v", d)
			}
			var e *dbconn.Error
			if !errors.As(err, &e) || !errors.Is(err, dbconn.ErrConfig) || e.Remedy == "" || !strings.Contains(err.Error(), tt.part) {
				t.Errorf("%v", err)
			}
			if strings.Contains(err.Error(), "hunter2secret") {
				t.Errorf("the password shows: %v", err)
			}
		})
	}
}

// Whatever is accepted, pgx takes for a connection that is verified in full, to
// the same servers, as the same user.
func FuzzParseDSN(f *testing.F) {
	for _, seed := range []string{
		"postgres://u:p@db:5432/d?sslmode=verify-full", "postgresql://a,b:2,[::1]:3/d?sslmode=verify-full&target_session_attrs=any",
		`host='d b' dbname=d\ x sslmode=verify-full password='it''s'`, "host=/run dbname=d sslmode=verify-full", "postgres://u:p@/d?host=%2Frun&sslmode=verify-full",
		"postgres://db/d?sslmode=verify-full&sslmode=disable", "postgres://db/d?ssl=true", "host=a,b port=1 dbname=d sslmode=verify-full",
		"postgres://db/d?sslmode=verify-full&options=-c%20a%3Db", "postgres://u%40:p%3A@db/d%2Fe?sslmode=verify-full&user=x",
		"host = db dbname\t=\td sslmode=verify-full", "postgres://[db]/d?sslmode=verify-full", "postgres://db:/d?sslmode=verify-full",
	} {
		f.Add(seed)
	}
	for _, env := range os.Environ() {
		if name, _, _ := strings.Cut(env, "="); strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGBIN") {
			f.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	f.Setenv("HOME", f.TempDir())
	f.Fuzz(func(t *testing.T, dsn string) {
		d, err := dbconn.ParseDSN(dsn)
		if err != nil {
			var e *dbconn.Error
			if !errors.As(err, &e) || !errors.Is(err, dbconn.ErrConfig) {
				t.Errorf("%v", err)
			}
			return
		}
		if d.RootCert != "" || d.Cert != "" || strings.Contains(dsn, "gssencmode") {
			return // pgx would read files, and takes gssencmode for a setting
		}
		c, err := pgconn.ParseConfig(dsn)
		if err != nil {
			return // a pity, but safe
		}
		addrs := []string{}
		check := func(host string, port uint16, fallback *pgconn.FallbackConfig) {
			tls := c.TLSConfig
			if fallback != nil {
				tls = fallback.TLSConfig
			}
			if tls == nil || tls.InsecureSkipVerify || tls.ServerName != host {
				t.Errorf("%q: pgx would not verify %s: %+v", dsn, host, tls)
			}
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			addrs = append(addrs, host+":"+strconv.Itoa(int(port)))
		}
		check(c.Host, c.Port, nil)
		for _, fb := range c.Fallbacks {
			check(fb.Host, fb.Port, fb)
		}
		if got := strings.Join(addrs, ","); got != d.Addr || c.Database != d.Database || (d.User != "" && c.User != d.User) || c.Password != d.Password.Reveal() {
			t.Errorf("%q: pgx reads %s %s as %s, we %+v", dsn, got, c.Database, c.User, d)
		}
		for name := range c.RuntimeParams {
			if name != "application_name" {
				t.Errorf("%q sets %s", dsn, name)
			}
		}
	})
}

// A connection string with files becomes a pool, for a tool.
func TestDSNConfig(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{HBA: bound})
	pg.Exec(t, "postgres", "CREATE ROLE tool LOGIN PASSWORD 'it works'")
	dir := t.TempDir()
	pair := pg.CA().Issue(testpki.Spec{CN: "tool"})
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := write("cert.pem", pair.CertPEM()), write("key.pem", pair.KeyPEM())
	base := fmt.Sprintf("postgres://tool:it%%20works@%s/postgres?sslmode=verify-full", pg.Addr())
	config := func(query string) (dbconn.Config, error) {
		d, err := dbconn.ParseDSN(base + query)
		if err != nil {
			t.Fatal(err)
		}
		return d.Config()
	}
	c, err := config("&sslrootcert=" + pg.CAFile() + "&sslcert=" + cert + "&sslkey=" + key)
	if err != nil {
		t.Fatal(err)
	}
	if name := user(t, open(t, c)); name != "tool" {
		t.Error(name)
	}
	for name, query := range map[string]string{
		"no authority": "", "no such file": "&sslrootcert=/nowhere", "no authority in it": "&sslrootcert=" + key,
		"no such certificate": "&sslrootcert=" + pg.CAFile() + "&sslcert=/nowhere&sslkey=" + key,
		"no such key":         "&sslrootcert=" + pg.CAFile() + "&sslcert=" + cert + "&sslkey=/nowhere",
		"another's key":       "&sslrootcert=" + pg.CAFile() + "&sslcert=" + cert + "&sslkey=" + write("other.pem", pg.CA().Issue(testpki.Spec{}).KeyPEM()),
	} {
		if _, err := config(query); !errors.Is(err, dbconn.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, err := config("&sslrootcert=system"); err != nil || c.Roots == nil || c.Certs != nil {
		t.Errorf("%v", err)
	}
	// A certificate of somebody else's does not pass for the user's.
	c.Leases = dbconn.Fixed("other", secrets.NewString("it works"))
	refused(t, c, dbconn.ErrInsecure, `for "tool"`)
}
