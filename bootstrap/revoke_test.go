package bootstrap_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/vaulttest"
)

// A replaced lease that Vault will not take back is told, stops nothing, and ends
// with the token.
func TestReplacedLeaseThatIsNotRevoked(t *testing.T) {
	inFakeTime(t, func(t *testing.T, d *doubleT) {
		s := d.start(d.leased(d.config(d.wrapped())))
		source := s.Leases("database/creds/" + d.name)
		old, release, _, err := source.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		mend := d.server.Inject(vaulttest.Fault{Path: "sys/leases/revoke/*", Status: 403})
		if err := source.Replace(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute) // of the hour that it lives
		synctest.Wait()
		e := d.events.all("session.lease.returned")
		if len(e) != 1 || e[0].Outcome != auditlog.Failure || e[0].Severity != auditlog.Warning || e[0].Attributes["lease_id"] != old.ID() || e[0].Attributes["reason"] == "" || d.db.isRevoked(old.ID()) {
			t.Errorf("%+v", e)
		}
		if lease, release, _, err := source.Current(t.Context()); err != nil || lease.ID() == old.ID() {
			t.Errorf("%v, %v", lease, err)
		} else {
			release()
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
		mend()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !d.db.isRevoked(old.ID()) {
			t.Error("the old user outlives the session")
		}
	})
}
