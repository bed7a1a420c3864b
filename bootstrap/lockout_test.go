package bootstrap_test

import (
	"testing"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/bootstrap"
)

// lockOut makes Vault refuse the role for a while.
func (v *vaultT) lockOut() {
	for range 5 {
		v.do("POST", "auth/approle/login", obj{"role_id": v.roleID(), "secret_id": "wrong"})
	}
}

func TestLockout(t *testing.T) {
	v := onReal(t)
	v.lockOut()
	v.fails(v.config(v.secretID()), bootstrap.ErrLockedOut, "sys/locked-users", "15 minutes")
}

// With a file to be handed a SecretID in, a service that is locked out waits
// there, and does not send the refused one again.
func TestLockedOutServiceWaits(t *testing.T) {
	for name, secretID := range map[string]func(*vaultT) string{"bare": (*vaultT).secretID, "wrapped": func(v *vaultT) string { return v.wrapped() }} {
		t.Run(name, func(t *testing.T) {
			v := onReal(t)
			v.lockOut()
			cfg := v.withFile(secretID(v))
			waits := make(chan bootstrap.Status, 8)
			cfg.OnStatus = func(st bootstrap.Status) {
				if st.State == bootstrap.Waiting {
					waits <- st
				}
			}
			go func() {
				<-waits
				mount := v.must("GET", "sys/auth/approle", nil)["data"].(obj)["accessor"].(string)
				v.must("POST", "sys/locked-users/"+mount+"/unlock/"+v.roleID(), obj{})
				v.drop(cfg.SecretIDFile, v.wrapped())
			}()
			s := v.start(cfg)
			if err := s.Ready(); err != nil {
				t.Error(err)
			}
			var refused, accepted int
			for _, e := range v.events.all("bootstrap.login") {
				if e.Outcome == auditlog.Success {
					accepted++
				} else {
					refused++
				}
			}
			if refused != 1 || accepted != 1 {
				t.Errorf("%d logins refused and %d accepted, want one of each", refused, accepted)
			}
		})
	}
}
