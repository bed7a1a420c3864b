package assertion

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/tlsconfig"
)

// Config is how a Verifier judges.
type Config struct {
	// Audience is the callee's own name, as callers write it. Required.
	Audience string
	// Aliases are more names of the callee, for callers that write another.
	Aliases []string
	// Skew is how far the clocks of caller and callee may be apart; zero means
	// five seconds, negative not at all.
	Skew time.Duration
	// Memory is how many assertions are remembered until they have ended, so
	// that none is used twice; zero means 100,000. When so many are remembered,
	// new ones are refused.
	Memory int
	Now    func() time.Time // the wall clock; nil means time.Now
}

// A Verifier judges assertions, each once. It is safe for concurrent use.
type Verifier struct {
	cfg Config

	mu    sync.Mutex
	used  map[[sha256.Size]byte]bool
	order []spent // by the time of use, so nearly by the end
}

type spent struct {
	id   [sha256.Size]byte
	ends time.Time
}

// NewVerifier returns a Verifier.
func NewVerifier(cfg Config) (*Verifier, error) {
	if cfg.Audience == "" || slices.Contains(cfg.Aliases, "") {
		return nil, errors.New("assertion: the verifier has no audience; give the callee's own name")
	}
	switch {
	case cfg.Skew == 0:
		cfg.Skew = 5 * time.Second
	case cfg.Skew < 0:
		cfg.Skew = 0
	}
	if cfg.Memory <= 0 {
		cfg.Memory = 100_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg: cfg, used: map[[sha256.Size]byte]bool{}}, nil
}

// Verify returns the user for whom the peer calls. The token must be signed
// with the key of the peer's certificate, for this callee, a few seconds ago,
// and not have been seen before. Any other is ErrRefused.
func (v *Verifier) Verify(peer *tlsconfig.PeerIdentity, token string) (User, error) {
	if peer == nil || peer.Certificate == nil {
		return User{}, refuse("it came without a verified certificate")
	}
	if len(token) > maxToken {
		return User{}, refuse("it is longer than %d bytes", maxToken)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return User{}, refuse("it has %d parts, not 3", len(parts))
	}
	var head header
	if decode(parts[0], &head) != nil {
		return User{}, refuse("its header does not read")
	}
	alg, err := algorithm(peer.Certificate.PublicKey)
	if err != nil {
		return User{}, refuse("%v", err)
	}
	thumbprint := encoding.EncodeToString(peer.Fingerprint[:])
	switch {
	case head.Type != tokenType:
		return User{}, refuse("its type is not %s", tokenType)
	case head.Algorithm != alg:
		return User{}, refuse("its algorithm is not %s, which the peer's key makes", alg)
	case subtle.ConstantTimeCompare([]byte(head.Thumbprint), []byte(thumbprint)) != 1:
		return User{}, refuse("it was signed with another certificate than the connection's")
	}
	signature, err := encoding.DecodeString(parts[2])
	if err != nil || !verify(peer.Certificate.PublicKey, []byte(parts[0]+"."+parts[1]), signature) {
		return User{}, refuse("its signature is wrong")
	}
	var c claims
	if decode(parts[1], &c) != nil {
		return User{}, refuse("its claims do not read")
	}
	user := User{ID: c.Subject, Roles: c.Roles, Attributes: c.Attributes}
	now := v.cfg.Now()
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	switch {
	case c.Confirm.Thumbprint != thumbprint:
		return User{}, refuse("it is bound to another certificate than the connection's")
	case c.Audience != v.cfg.Audience && !slices.Contains(v.cfg.Aliases, c.Audience):
		return User{}, refuse("it is for another service than %s", v.cfg.Audience)
	case c.Subject == "" || user.check() != nil:
		return User{}, refuse("its user has no ID, or one that no header could carry")
	case c.ID == "":
		return User{}, refuse("it has no jti")
	case issued.After(now.Add(v.cfg.Skew + time.Second)): // seconds are cut off
		return User{}, refuse("it is from the future; compare the clocks")
	case !now.Before(expires.Add(v.cfg.Skew)):
		return User{}, refuse("it ended at %s; compare the clocks", expires.UTC().Format(time.RFC3339))
	case expires.After(issued.Add(Life + time.Second)):
		return User{}, refuse("it is to be good for longer than %s", Life)
	}
	if err := v.use(sha256.Sum256([]byte(thumbprint+"."+c.ID)), expires.Add(v.cfg.Skew), now); err != nil {
		return User{}, err
	}
	return user, nil
}

// use remembers an assertion, unless it was used before.
func (v *Verifier) use(id [sha256.Size]byte, ends, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(v.order) > 0 && !now.Before(v.order[0].ends) {
		delete(v.used, v.order[0].id)
		v.order = v.order[1:]
	}
	switch {
	case v.used[id]:
		return refuse("it was used before")
	case len(v.order) >= v.cfg.Memory:
		return refuse("%d others are still remembered, and one more would be forgotten; raise Memory", len(v.order))
	}
	v.used[id] = true
	v.order = append(v.order, spent{id, ends})
	return nil
}
