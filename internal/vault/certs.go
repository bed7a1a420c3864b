package vault

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// CertConfig is how a [CertKeeper] works. All fields but Request, Log and Rand
// may be zero.
type CertConfig struct {
	Request CertRequest
	Log     *slog.Logger
	Rand    func() float64   // uniform in [0,1)
	Now     func() time.Time // the wall clock; nil means time.Now
	// Adopt, if not nil, is given each certificate before it is published, and
	// may refuse it: then the last one stays, as if Vault had issued none.
	Adopt func(ctx context.Context, cert *Certificate) error
	// Renew, if not nil, has the certificate renewed at once when something
	// arrives.
	Renew <-chan struct{}
	// Published, if not nil, is told of each certificate that is published.
	Published func(cert *Certificate)
	// Failing, if not nil, is told when renewals begin to fail, once in a row,
	// with the certificate that stays.
	Failing func(cert *Certificate, err error)
}

// CertKeeper keeps one certificate valid. It obtains the next, with a new key,
// at a point drawn uniformly between 60% and 75% of the lifetime; if that
// fails, the last good one stays and the next try comes within a minute.
type CertKeeper struct {
	cfg  CertConfig
	life context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	client   *Client
	current  *Certificate
	replaced chan struct{} // closed when current is not the newest any more
	problem  error         // why the last renewal failed
}

// KeepCert obtains a certificate through client, waiting out what may pass, and
// keeps it valid until Close.
func KeepCert(ctx context.Context, client *Client, cfg CertConfig) (*CertKeeper, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	k := &CertKeeper{cfg: cfg, client: client}
	first, err := k.obtain(ctx)
	if err != nil {
		return nil, err
	}
	k.life, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	k.publish(first)
	k.wg.Go(k.keep)
	return k, nil
}

// Close ends the renewals and waits for one that is under way.
func (k *CertKeeper) Close() {
	k.stop()
	k.wg.Wait()
}

// Use makes the next renewals go through client: the session has a new token.
func (k *CertKeeper) Use(client *Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.client = client
}

// Current returns the newest certificate, and a channel that is closed when
// there is a newer one. The error says why there is none that is valid.
func (k *CertKeeper) Current() (*Certificate, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.cfg.Now().Before(k.current.NotAfter) {
		err := fmt.Errorf("vault: %s: the certificate ended at %s", k.cfg.Request.Role, k.current.NotAfter.UTC().Format(time.RFC3339))
		if k.problem != nil {
			err = fmt.Errorf("%w and cannot be renewed: %w", err, k.problem)
		}
		return nil, nil, err
	}
	return k.current, k.replaced, nil
}

func (k *CertKeeper) obtain(ctx context.Context) (cert *Certificate, err error) {
	k.mu.Lock()
	client := k.client
	k.mu.Unlock()
	err = client.Retry(ctx, k.cfg.Request.Role, func(ctx context.Context) (err error) {
		cert, err = client.IssueCert(ctx, k.cfg.Request, k.cfg.Now())
		return err
	})
	if err == nil && k.cfg.Adopt != nil {
		err = k.cfg.Adopt(ctx, cert)
	}
	return cert, err
}

func (k *CertKeeper) publish(cert *Certificate) {
	k.mu.Lock()
	k.current, k.problem = cert, nil
	if k.replaced != nil {
		close(k.replaced)
	}
	k.replaced = make(chan struct{})
	k.mu.Unlock()
	if k.cfg.Published != nil {
		k.cfg.Published(cert)
	}
}

// keep renews at the drawn point, and after a failure until it succeeds: an
// end of the certificate does not end the service.
func (k *CertKeeper) keep() {
	for {
		k.mu.Lock()
		ends := k.current.NotAfter
		k.mu.Unlock()
		left := ends.Sub(k.cfg.Now())
		wait := max(time.Duration((renewFrom+k.cfg.Rand()*(renewTo-renewFrom))*float64(left)), minDelay)
		for gap := minReplaceGap; ; gap = min(2*gap, maxReplaceGap) {
			if _, err := (deadline{now: k.cfg.Now}).after(wait).wait(k.life, k.cfg.Renew); err != nil {
				return
			}
			if k.renew() {
				break
			}
			wait = time.Duration((1 + k.cfg.Rand()) / 2 * float64(gap))
		}
	}
}

// renew publishes the next certificate, and reports whether it could.
func (k *CertKeeper) renew() bool {
	ctx, cancel := context.WithTimeout(k.life, replaceTimeout)
	defer cancel()
	next, err := k.obtain(ctx)
	if err == nil {
		k.publish(next)
		return true
	}
	if k.life.Err() != nil {
		return false
	}
	k.mu.Lock()
	first, last := k.problem == nil, k.current
	k.problem = err
	k.mu.Unlock()
	k.cfg.Log.Error("a certificate cannot be renewed; the last one stays", "role", k.cfg.Request.Role, "ends", last.NotAfter, "error", err)
	if first && k.cfg.Failing != nil {
		k.cfg.Failing(last, err)
	}
	return false
}
