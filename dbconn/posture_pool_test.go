package dbconn_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// A pool checks each leased role: a service does not start with one that walks
// around policies, and keeps the one that it has when the next one does.
func TestPoolEnforcesPosture(t *testing.T) {
	w := newWorld(t, realpg.Config{})
	cfg := w.config()
	cfg.Admit = dbconn.PostureConfig{Mode: dbconn.Enforce, Audit: w.events}.Admit
	w.leases.next()
	if db, err := dbconn.Open(t.Context(), cfg); !errors.Is(err, dbconn.ErrAdmit) || !errors.Is(err, dbconn.ErrPosture) || !strings.Contains(err.Error(), "rls_disabled table public.entries") {
		if err == nil {
			_ = db.Close(t.Context())
		}
		t.Fatalf("opened with a role that meets no policy: %v", err)
	}

	w.pg.Exec(t, "postgres", `ALTER TABLE entries ENABLE ROW LEVEL SECURITY`)
	db := open(t, cfg)
	first := user(t, db)

	w.leases.create = createRole + ` BYPASSRLS`
	w.leases.next()
	e := w.events.await(t, "database.rotation", auditlog.Failure, 1)
	if !strings.Contains(e.Attributes["reason"], "bypassrls") {
		t.Errorf("the event says %q", e.Attributes["reason"])
	}
	if now := user(t, db); now != first {
		t.Errorf("moved from %s to %s", first, now)
	}

	w.leases.create = createRole
	w.leases.next()
	w.events.await(t, "database.rotation", "", 1)
	if now := user(t, db); now == first {
		t.Error("a clean role was not taken")
	}
}
