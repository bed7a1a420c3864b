package secrets

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// forever is the life of credentials that nobody takes back.
const forever = 100 * 365 * 24 * time.Hour

// FixedLease returns a source whose credentials stay as they are: for a tool
// that an operator runs with a password of their own. A service has better ones.
func FixedLease(user string, password Secret) LeaseSource {
	return &fixedLease{lease: newOwnLease("fixed", user, password), never: make(chan struct{})}
}

// newOwnLease makes a lease of credentials that no lease was made for.
func newOwnLease(ref, user string, password Secret) *Lease {
	return NewLease(ref, fmt.Sprintf("%s/%s@%d", ref, user, password.Version()), map[string]Secret{
		"username": NewString(user), "password": New(password.Bytes())}, time.Now(), forever)
}

type fixedLease struct {
	lease *Lease
	never chan struct{}
}

func (f *fixedLease) Current(context.Context) (*Lease, func(), <-chan struct{}, error) {
	return f.lease, f.lease.Hold(), f.never, nil
}

func (f *fixedLease) Replace(context.Context, *Lease) error {
	return errors.New("secrets: the credentials are fixed: give others")
}

// KVLeases is a LeaseSource that reads a password from a KV secret. A new version
// of the secret is a new lease; the old one is left to end by itself, because who
// changed the password has ended it already.
type KVLeases struct {
	store          *Store
	ref            string
	user, password Secret
	watch          *Watcher
	life           context.Context
	stop           context.CancelFunc
	done           chan struct{}

	mu       sync.Mutex
	lease    *Lease
	replaced chan struct{}
}

// LeasesFromKV follows a password in the store,
// "tamshai/databases#tamshai_db_password". user is a reference too, if it has a
// "#", else the name itself. Both references must be declared. Close it after
// what uses it.
func LeasesFromKV(store *Store, user, password string) (*KVLeases, error) {
	k := &KVLeases{store: store, ref: password, done: make(chan struct{}), replaced: make(chan struct{})}
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
		k.user = NewString(user)
	}
	if k.watch, err = store.Watch(refs...); err != nil {
		return nil, err
	}
	k.life, k.stop = context.WithCancel(context.Background())
	k.lease = newOwnLease(k.ref, k.user.Reveal(), k.password)
	go k.follow()
	return k, nil
}

func (k *KVLeases) follow() {
	defer close(k.done)
	for {
		if _, err := k.watch.Next(k.life); err != nil {
			return
		}
		k.publish()
	}
}

// publish makes a lease of the newest values, unless there is one.
func (k *KVLeases) publish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	user := k.user.Reveal()
	if user == k.lease.Username() && k.password.Equal(k.lease.Password()) {
		return
	}
	old := k.lease
	k.lease = newOwnLease(k.ref, user, k.password)
	close(k.replaced)
	k.replaced = make(chan struct{})
	old.Retire()
}

// Current implements LeaseSource.
func (k *KVLeases) Current(context.Context) (*Lease, func(), <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life.Err() != nil {
		return nil, nil, nil, ErrLeaseClosed
	}
	return k.lease, k.lease.Hold(), k.replaced, nil
}

// Replace looks for a newer version of the secret. It is an error if there is
// none: only who knows the database's superuser can set another password.
func (k *KVLeases) Replace(ctx context.Context, old *Lease) error {
	if err := k.store.Refresh(ctx); err != nil {
		return err
	}
	k.publish()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lease == old {
		return fmt.Errorf("secrets: %s has no newer version; write the password that the database has", k.ref)
	}
	return nil
}

// Close ends the watch.
func (k *KVLeases) Close() {
	k.stop()
	k.watch.Close()
	<-k.done
}
