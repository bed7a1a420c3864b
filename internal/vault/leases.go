package vault

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// KeeperConfig is how a [LeaseKeeper] works. All fields but Ref may be zero.
type KeeperConfig struct {
	Ref string // "database/creds/mcp-hr"
	// Drain is how long the users of a replaced lease get to move over before
	// it is revoked under them; 0 means a minute. While a user doubts the
	// newest lease, which may not work, they get that long again.
	Drain time.Duration
	Log   *slog.Logger
	Rand  func() float64
	Now   func() time.Time
	// Published, if not nil, is told of each lease that is published.
	Published func(lease *secrets.Lease)
	// Returned, if not nil, is told of each lease that is given back, with the
	// number of users that it still had and why it could not be revoked.
	Returned func(lease *secrets.Lease, holders int, err error)
}

// LeaseKeeper keeps one set of dynamic credentials valid: it renews the lease,
// obtains the next one while the last is still good, publishes it, and gives
// the old one back when its users have moved over. It is a
// secrets.LeaseSource.
type LeaseKeeper struct {
	cfg  KeeperConfig
	life context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	replacing sync.Mutex // held while a new lease is obtained

	mu       sync.Mutex
	current  held
	replaced chan struct{} // closed when current is not the newest any more
	problem  error         // why the last attempt to replace failed
	owed     []held        // not current and not given back: Close came first, or Vault refused
}

// errNotRotated is what replacing the credentials of a static role gives before
// Vault has changed its password.
var errNotRotated = errors.New("the static role has the same password still; Vault changes it when its TTL is over, or at rotate-role")

// isStatic reports whether the lease is that of a static role.
func isStatic(lease *secrets.Lease) bool { return lease.ID() == "" }

// afterRotation is the pause between the time at which Vault is to change the
// password of a static role, and the time at which it is asked for.
const afterRotation = time.Second

// held is a lease with what is needed to renew it and to give it back.
type held struct {
	lease  *secrets.Lease
	grant  Grant
	client *Client // the one whose token owns the lease
}

// KeepLease obtains a lease through client, waiting out what may pass, and
// keeps it until Close.
func KeepLease(ctx context.Context, client *Client, cfg KeeperConfig) (*LeaseKeeper, error) {
	if cfg.Drain == 0 {
		cfg.Drain = time.Minute
	}
	k := &LeaseKeeper{cfg: cfg, replaced: make(chan struct{})}
	first, err := k.obtain(ctx, client)
	if err != nil {
		return nil, err
	}
	k.current = first
	k.life, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	k.wg.Go(k.keep)
	k.published(first.lease)
	return k, nil
}

func (k *LeaseKeeper) obtain(ctx context.Context, client *Client) (held, error) {
	h := held{client: client}
	err := client.Retry(ctx, k.cfg.Ref, func(ctx context.Context) (err error) {
		h.lease, h.grant, err = client.ReadLease(ctx, k.cfg.Ref)
		return err
	})
	return h, err
}

// Close ends the renewals and waits for what is under way. It revokes
// nothing: that is done for all leases at once, by revoking their token, or
// else by ReturnAll.
func (k *LeaseKeeper) Close() {
	k.mu.Lock() // so that no publish starts another goroutine after this
	k.stop()
	k.mu.Unlock()
	k.wg.Wait()
}

const (
	// replaceTimeout bounds one attempt to replace a lease, so that its failure
	// gets known and a hand-over does not wait for it for long.
	replaceTimeout = 30 * time.Second
	// The gap after a failed attempt, doubled each time.
	minReplaceGap, maxReplaceGap = 5 * time.Second, time.Minute
)

// keep renews each lease until it has to be replaced, and replaces it.
func (k *LeaseKeeper) keep() {
	for k.life.Err() == nil {
		h, replaced := k.newest()
		reason := k.renew(h, replaced)
		for gap := minReplaceGap; k.life.Err() == nil && !isClosed(replaced); gap = min(2*gap, maxReplaceGap) {
			k.cfg.Log.Info("a lease has to be replaced", "lease", h.lease, "reason", reason)
			err := k.Replace(k.life, h.lease)
			if err == nil || errors.Is(err, errNotRotated) {
				break
			}
			k.cfg.Log.Error("a lease cannot be replaced; the old one stays while it lives", "lease", h.lease, "error", err)
			sleep(k.life, replaced, time.Duration((1+k.cfg.Rand())/2*float64(gap)))
		}
	}
}

// renew keeps one lease alive until it has to be replaced, or has been.
func (k *LeaseKeeper) renew(h held, replaced <-chan struct{}) error {
	if isStatic(h.lease) {
		sleep(k.life, replaced, time.Until(h.lease.Expires())+afterRotation)
		return errors.New("Vault has changed the password")
	}
	ctx, cancel := context.WithCancel(k.life)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-replaced:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-watching }()
	r := &Renewer{
		Name: h.lease.ID(), Start: h.grant, Rand: k.cfg.Rand, Now: k.cfg.Now, Log: k.cfg.Log,
		Renew:   func(ctx context.Context) (Grant, error) { return h.client.RenewLease(ctx, h.lease.ID()) },
		Renewed: h.lease.Extend,
	}
	return r.Run(ctx)
}

func (k *LeaseKeeper) newest() (held, chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current, k.replaced
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// sleep waits for d, or until ctx ends or early is closed.
func sleep(ctx context.Context, early <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-early:
	case <-timer.C:
	}
}

// Current implements secrets.LeaseSource.
func (k *LeaseKeeper) Current(context.Context) (*secrets.Lease, func(), <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life.Err() != nil {
		return nil, nil, nil, secrets.ErrLeaseClosed
	}
	if err := k.expired(); err != nil {
		return nil, nil, nil, err
	}
	return k.current.lease, k.current.lease.Hold(), k.replaced, nil
}

// Expired returns nil while the current lease is good, and otherwise why there
// is no newer one.
func (k *LeaseKeeper) Expired() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.expired()
}

func (k *LeaseKeeper) expired() error {
	if k.problem != nil && time.Now().After(k.current.lease.Expires()) {
		return k.problem
	}
	return nil
}

// Replace implements secrets.LeaseSource.
func (k *LeaseKeeper) Replace(ctx context.Context, old *secrets.Lease) error {
	k.replacing.Lock()
	defer k.replacing.Unlock()
	h, _ := k.newest()
	if h.lease != old {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, replaceTimeout)
	defer cancel()
	next, err := k.obtain(ctx, h.client)
	if err != nil {
		k.mu.Lock()
		k.problem = err
		k.mu.Unlock()
		return err
	}
	if isStatic(next.lease) && next.lease.Password().Equal(old.Password()) {
		old.Extend(next.lease.Expires())
		return errNotRotated
	}
	k.publish(next)
	return nil
}

// Prepare obtains a lease under another client, to be published by Handover.
// It is for moving to a new token as a whole.
func (k *LeaseKeeper) Prepare(ctx context.Context, client *Client) (Prepared, error) {
	h, err := k.obtain(ctx, client)
	return Prepared{h}, err
}

// Prepared is a lease that is not published yet.
type Prepared struct{ held }

// Handover publishes what Prepare obtained. The returned channel is closed when
// the old lease has been given back.
func (k *LeaseKeeper) Handover(p Prepared) <-chan struct{} {
	k.replacing.Lock()
	defer k.replacing.Unlock()
	return k.publish(p.held)
}

// publish makes next the current lease and sees the old one off.
func (k *LeaseKeeper) publish(next held) (returned <-chan struct{}) {
	done := make(chan struct{})
	k.mu.Lock()
	if k.life.Err() != nil {
		k.owed = append(k.owed, next)
		k.mu.Unlock()
		close(done)
		return done
	}
	old := k.current
	k.current, k.problem = next, nil
	close(k.replaced)
	k.replaced = make(chan struct{})
	k.wg.Go(func() {
		defer close(done)
		k.giveBack(old)
	})
	k.mu.Unlock()
	k.published(next.lease)
	return done
}

func (k *LeaseKeeper) published(lease *secrets.Lease) {
	if k.cfg.Published != nil {
		k.cfg.Published(lease)
	}
}

// giveBack revokes a replaced lease when nobody holds it, or at the deadline.
func (k *LeaseKeeper) giveBack(h held) {
	timer := time.NewTimer(k.cfg.Drain)
	defer timer.Stop()
	for waiting := true; waiting; {
		select {
		case <-h.lease.Retire():
			waiting = false
		case <-timer.C:
			newest, _ := k.newest()
			waiting = newest.lease.Doubted() && time.Now().Before(h.lease.Expires())
			timer.Reset(k.cfg.Drain)
		case <-k.life.Done():
			k.owe(h)
			return
		}
	}
	ctx, cancel := context.WithTimeout(k.life, k.cfg.Drain)
	defer cancel()
	if err := k.revoke(ctx, h); err != nil {
		k.owe(h)
		k.cfg.Log.Warn("a replaced lease cannot be revoked; it ends with its TTL", "lease", h.lease, "error", err)
	}
}

func (k *LeaseKeeper) owe(h held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owed = append(k.owed, h)
	k.owed = slices.DeleteFunc(k.owed, func(h held) bool { return time.Now().After(h.lease.Expires()) })
}

// ReturnAll gives back, after Close, every lease that the keeper has obtained
// and not given back yet. It is for a token that lives on.
func (k *LeaseKeeper) ReturnAll(ctx context.Context) error {
	k.mu.Lock()
	leases := append(k.owed, k.current)
	k.owed = nil
	k.mu.Unlock()
	var errs []error
	for _, h := range leases {
		errs = append(errs, k.revoke(ctx, h))
	}
	return errors.Join(errs...)
}

func (k *LeaseKeeper) revoke(ctx context.Context, h held) error {
	if isStatic(h.lease) {
		return nil // its old password is gone already
	}
	holders := h.lease.Holders()
	err := h.client.Retry(ctx, "revoke "+h.lease.ID(), func(ctx context.Context) error { return h.client.RevokeLease(ctx, h.lease.ID()) })
	if errors.Is(err, ErrTokenInvalid) {
		err = nil // a dead token has taken its leases with it
	}
	if k.cfg.Returned != nil {
		k.cfg.Returned(h.lease, holders, err)
	}
	return err
}
