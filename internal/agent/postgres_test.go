package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/agent"
)

func TestPostgresUsage(t *testing.T) {
	const good = "unix:/run/pg=db:5432/hr,lease=database/creds/a,certificate=pki/sign/a-db"
	if _, err := parse("-postgres", good, "-postgres", "127.0.0.1:0=db/hr,lease=database/static-creds/a,certificate=pki/sign/a-db,move,env=U:url", "--", "x"); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for want, args := range map[string][]string{
		"LISTEN=SERVER/DATABASE":        {"-postgres", "unix:/run/pg"},
		"there is no option":            {"-postgres", good + ",password=x"},
		"must not leave the machine":    {"-postgres", strings.Replace(good, "unix:/run/pg", "0.0.0.0:5432", 1)},
		"absolute, clean path":          {"-postgres", strings.Replace(good, "/run/pg", "pg", 1)},
		"a Unix socket has no TLS":      {"-postgres", strings.Replace(good, "db:5432", "@db", 1)},
		"the database is missing":       {"-postgres", strings.Replace(good, "/hr,", "/,", 1)},
		"write it like database/creds":  {"-postgres", strings.Replace(good, "database/creds/a", "database", 1)},
		"nobody vouches for the server": {"-postgres", strings.Replace(good, ",certificate=pki/sign/a-db", "", 1)},
		"the same for all databases":    {"-postgres", good, "-postgres", "unix:/run/pg2=db/hr,lease=database/creds/a,certificate=pki/sign/b"},
		"it is there twice":             {"-postgres", good, "-postgres", good},
		"the password of this start":    {"-postgres", strings.Replace(good, "unix:/run/pg", "127.0.0.1:0", 1)},
		"is no name for a variable":     {"-postgres", good + ",env=VAULT_X:url"},
		"asked for twice":               {"-env", "A=m/p#f", "-postgres", good + ",env=A:url"},
		"there are url, host":           {"-postgres", good + ",env=A:dsn"},
		"it listens for nothing":        {"-once", "-file", "/a=m/p#f", "-postgres", good},
	} {
		if want != "it listens for nothing" {
			args = append(args, "--", "x")
		}
		if _, err := parse(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestPostgresInTheFile(t *testing.T) {
	load := func(block string) (agent.Config, error) {
		file := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(file, []byte("command: [x]\n"+block), 0o600); err != nil {
			t.Fatal(err)
		}
		return parse("-config", file)
	}
	c, err := load(`postgres:
  - {listen: unix:/run/phoenix/pg, server: postgres, database: hr, lease: database/creds/a, certificate: pki/sign/a-db,
     ca: /etc/ca.pem, user: hr, env: {DATABASE_URL: url}, peers: user, max_conns: 20, drain: 30s, move: true}
`)
	want := []agent.Postgres{{Listen: "unix:/run/phoenix/pg", Server: "postgres", Database: "hr", Lease: "database/creds/a", Certificate: "pki/sign/a-db",
		CA: "/etc/ca.pem", User: "hr", Env: map[string]string{"DATABASE_URL": "url"}, Peers: "user", MaxConns: 20, Drain: 30 * time.Second, Move: true}}
	if err != nil || !reflect.DeepEqual(c.Postgres, want) {
		t.Errorf("got %+v, %v", c.Postgres, err)
	}
	for want, block := range map[string]string{
		"peers is":         "postgres: [{listen: unix:/a, server: b, database: c, lease: d/creds/e, ca: f, peers: all}]",
		"taken back after": "postgres: [{listen: unix:/a, server: b, database: c, lease: d/creds/e, ca: f, drain: 1h}]",
		"sslmode":          "postgres: [{listen: unix:/a, sslmode: disable}]",
		"connections is":   "postgres: [{listen: unix:/a, max_conns: -1}]",
	} {
		if _, err := load(block); !errors.Is(err, agent.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", block, err, want)
		}
	}
}
