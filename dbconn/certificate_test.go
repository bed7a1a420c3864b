package dbconn_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/testpki"
)

// A user's certificate is renewed after two thirds of its life, for the next
// connection; one that cannot be renewed is used to its end.
func TestCertificateIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ca: testpki.NewCA("test"), breaks: func(s testpki.Spec) testpki.Spec {
			s.NotBefore, s.NotAfter = time.Now(), time.Now().Add(3*time.Hour)
			return s
		}}
		var c dbconn.Certificate
		want := func(after time.Duration, issued int) {
			t.Helper()
			time.Sleep(after)
			if _, err := c.Get(t.Context(), i, "v-app"); err != nil {
				t.Errorf("%v", err)
			}
			if n := len(i.issued()); n != issued {
				t.Errorf("%d certificates, want %d", n, issued)
			}
		}
		want(0, 1)
		want(2*time.Hour-time.Second, 1)
		want(2*time.Second, 2)
		i.fails = errors.New("away")
		want(2*time.Hour+time.Second, 3)
		want(time.Hour-10*time.Second, 4)
		time.Sleep(time.Minute)
		if _, err := c.Get(t.Context(), i, "v-app"); err == nil {
			t.Error("an expired certificate was used")
		}
		i.fails = nil
		want(0, 6)

		// A server that nobody vouches for may have got another authority: the
		// next connection asks again, and not more than once a minute.
		c.Doubt()
		want(0, 6)
		time.Sleep(time.Minute + time.Second)
		c.Doubt()
		want(0, 7)
		c.Doubt()
		want(0, 7)
	})
}
