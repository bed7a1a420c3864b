package realpg_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
)

func TestMain(m *testing.M) { leak.Main(m) }

// login connects as a client does: with a password and a certificate, over TLS.
func login(ctx context.Context, pg *realpg.Server, user, password string, cert *testpki.Pair) error {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", user, password, pg.Addr()))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(pg.CA().Cert)
	cfg.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	if cert != nil {
		cfg.TLSConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Leaf().Raw}, PrivateKey: cert.Key}}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func TestVersions(t *testing.T) {
	for _, version := range []int{15, 16} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			pg := realpg.Start(t, realpg.Config{
				Version:  version,
				HBA:      []string{"hostssl all all all scram-sha-256 clientcert=verify-full"},
				Settings: map[string]string{"max_connections": "20"},
			})
			pg.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'right'", "CREATE TABLE kept (n int)")
			conn := pg.Connect(t, "postgres")
			defer conn.Close(t.Context())
			var limit, major string
			if err := conn.QueryRow(t.Context(), "SELECT current_setting('max_connections'), left(current_setting('server_version_num'), 2)").Scan(&limit, &major); err != nil {
				t.Fatal(err)
			}
			if limit != "20" || major != fmt.Sprint(version) {
				t.Errorf("max_connections %s, version %s", limit, major)
			}

			own, other := pg.CA().Issue(testpki.Spec{CN: "app"}), pg.CA().Issue(testpki.Spec{CN: "other"})
			if err := login(t.Context(), pg, "app", "right", &own); err != nil {
				t.Error(err)
			}
			for name, err := range map[string]error{
				"a wrong password":           login(t.Context(), pg, "app", "wrong", &own),
				"no certificate":             login(t.Context(), pg, "app", "right", nil),
				"a certificate of another's": login(t.Context(), pg, "app", "right", &other),
			} {
				if err == nil {
					t.Errorf("%s was accepted", name)
				}
			}

			addr := pg.Addr()
			pg.Restart(t)
			pg.Kill()
			if err := login(t.Context(), pg, "app", "right", &own); err == nil {
				t.Error("a killed server answered")
			}
			pg.Restart(t)
			pg.Exec(t, "postgres", "INSERT INTO kept VALUES (1)")
			if pg.Addr() != addr {
				t.Errorf("moved from %s to %s", addr, pg.Addr())
			}
		})
	}
}

// A second cluster takes over with everything that the first had.
func TestStandby(t *testing.T) {
	primary := realpg.Start(t, realpg.Config{})
	primary.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'x'")
	standby := primary.Standby(t)
	conn := standby.Connect(t, "postgres")
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE t (n int)"); err == nil {
		t.Error("a standby was written to")
	}
	primary.Stop()
	standby.Promote(t)
	standby.Exec(t, "postgres", "CREATE TABLE t (n int)")
	if err := login(t.Context(), standby, "app", "x", nil); err != nil {
		t.Error(err)
	}
}

// Root's own directories are closed to the user that the server runs as.
func TestPrivateBinaries(t *testing.T) {
	bin, err := realpg.Find(16)
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(t.TempDir(), "private")
	if err := os.CopyFS(private, os.DirFS(filepath.Dir(bin))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGBIN_16", filepath.Join(private, "bin"))
	realpg.Start(t, realpg.Config{Version: 16}).Exec(t, "postgres", "SELECT 1")
}

func TestNoTLS(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{NoTLS: true, HBA: []string{"host all all all trust"}})
	if err := login(t.Context(), pg, "postgres", "", nil); err == nil {
		t.Error("a server without TLS spoke it")
	}
}

func TestFind(t *testing.T) {
	t.Setenv("PGBIN_15", t.TempDir())
	if _, err := realpg.Find(15); !errors.Is(err, realpg.ErrNotFound) {
		t.Error(err)
	}
	if _, err := realpg.Find(9); !errors.Is(err, realpg.ErrNotFound) {
		t.Error(err)
	}
}
