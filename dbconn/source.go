package dbconn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// forever is the life of credentials that nobody takes back.
const forever = 100 * 365 * 24 * time.Hour

// Fixed returns a source whose credentials stay as they are: for a tool that an
// operator runs with a password of their own. A service has better ones.
func Fixed(user string, password secrets.Secret) secrets.LeaseSource {
	return &fixed{lease: newLease("fixed", user, password), never: make(chan struct{})}
}

func newLease(ref, user string, password secrets.Secret) *secrets.Lease {
	return secrets.NewLease(ref, fmt.Sprintf("%s/%s@%d", ref, user, password.Version()), map[string]secrets.Secret{
		"username": secrets.NewString(user), "password": secrets.New(password.Bytes())}, time.Now(), forever)
}

type fixed struct {
	lease *secrets.Lease
	never chan struct{}
}

func (f *fixed) Current(context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	return f.lease, f.lease.Hold(), f.never, nil
}

func (f *fixed) Replace(context.Context, *secrets.Lease) error {
	return errors.New("dbconn: the credentials are fixed: give others")
}

// KV is a LeaseSource that reads a password from a KV secret. A new version of
// the secret is a new lease; the old one is left to end by itself, because who
// changed the password has ended it already.
type KV struct {
	store          *secrets.Store
	ref            string
	user, password secrets.Secret
	watch          *secrets.Watcher
	life           context.Context
	stop           context.CancelFunc
	done           chan struct{}

	mu       sync.Mutex
	lease    *secrets.Lease
	replaced chan struct{}
}

// FromKV follows a password in the store, "tamshai/databases#tamshai_db_password".
// user is a reference too, if it has a "#", else the name itself. Both references
// must be declared. Close it after the DB.
func FromKV(store *secrets.Store, user, password string) (*KV, error) {
	k := &KV{store: store, ref: password, done: make(chan struct{}), replaced: make(chan struct{})}
	refs := []string{password}
	var err error
	if k.password, err = store.Secret(password); err != nil {
		return nil, err
	}
	if strings.Contains(user, "#") {
		if k.user, err = store.Secret(user); err != nil {
			return nil, err
		}
		refs = append(refs, user)
	} else {
		k.user = secrets.NewString(user)
	}
	if k.watch, err = store.Watch(refs...); err != nil {
		return nil, err
	}
	k.life, k.stop = context.WithCancel(context.Background())
	k.lease = newLease(k.ref, k.user.Reveal(), k.password)
	go k.follow()
	return k, nil
}

func (k *KV) follow() {
	defer close(k.done)
	for {
		if _, err := k.watch.Next(k.life); err != nil {
			return
		}
		k.publish()
	}
}

// publish makes a lease of the newest values, unless there is one.
func (k *KV) publish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	user := k.user.Reveal()
	if user == k.lease.Username() && k.password.Equal(k.lease.Password()) {
		return
	}
	old := k.lease
	k.lease = newLease(k.ref, user, k.password)
	close(k.replaced)
	k.replaced = make(chan struct{})
	old.Retire()
}

// Current implements secrets.LeaseSource.
func (k *KV) Current(context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life.Err() != nil {
		return nil, nil, nil, secrets.ErrLeaseClosed
	}
	return k.lease, k.lease.Hold(), k.replaced, nil
}

// Replace looks for a newer version of the secret. It is an error if there is
// none: only who knows the database's superuser can set another password.
func (k *KV) Replace(ctx context.Context, old *secrets.Lease) error {
	if err := k.store.Refresh(ctx); err != nil {
		return err
	}
	k.publish()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lease == old {
		return fmt.Errorf("dbconn: %s has no newer version; write the password that the database has", k.ref)
	}
	return nil
}

// Close ends the watch.
func (k *KV) Close() {
	k.stop()
	k.watch.Close()
	<-k.done
}

// Config reads the files that the connection string names. Leases is Fixed if
// there are a user and a password. More may be set in it before Open.
func (d *DSN) Config() (Config, error) {
	c := Config{Addr: d.Addr, Database: d.Database, ApplicationName: d.ApplicationName, TargetSessionAttrs: d.TargetSessionAttrs, ConnectTimeout: d.ConnectTimeout}
	if d.User != "" && !d.Password.IsZero() {
		c.Leases = Fixed(d.User, d.Password)
	}
	var bundle []byte
	switch d.RootCert {
	case "":
		return Config{}, badDSN("write sslrootcert=FILE, or sslrootcert=system", "sslrootcert is missing: nobody vouches for the server")
	case "system":
		roots, err := x509.SystemCertPool()
		if err != nil {
			return Config{}, badDSN("name a file", "sslrootcert=system: %w", err)
		}
		c.Roots = roots
	default:
		var err error
		if bundle, err = os.ReadFile(d.RootCert); err != nil {
			return Config{}, badDSN("name a PEM file of authorities", "sslrootcert: %w", err)
		}
		certs, err := tlsconfig.ParseCertificates(bundle)
		if err != nil {
			return Config{}, badDSN("name a PEM file of authorities", "sslrootcert: %w", err)
		}
		c.Roots = x509.NewCertPool()
		for _, ca := range certs {
			c.Roots.AddCert(ca)
		}
	}
	if d.Cert == "" {
		return c, nil
	}
	cert, err := os.ReadFile(d.Cert)
	if err != nil {
		return Config{}, badDSN("name a PEM file", "sslcert: %w", err)
	}
	key, err := os.ReadFile(d.Key)
	if err != nil {
		return Config{}, badDSN("name a PEM file", "sslkey: %w", err)
	}
	material, err := tlsconfig.ParseMaterial(cert, key, bundle)
	if err != nil {
		return Config{}, badDSN("let an authority in the sslrootcert file vouch for the client's certificate too", "sslcert: %w", err)
	}
	c.Certs = fixedIssuer{material}
	return c, nil
}

type fixedIssuer struct{ material *tlsconfig.Material }

func (f fixedIssuer) Issue(_ context.Context, r tlsconfig.IssueRequest) (*tlsconfig.Material, error) {
	if name := f.material.Leaf().Subject.CommonName; r.CommonName != name {
		return nil, fmt.Errorf("dbconn: the certificate is for %q, and the user is %q", name, r.CommonName)
	}
	return f.material, nil
}
