package assertion

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// Shared makes and reads tokens of one secret that all services share:
//
//	1764061200:alice:hr-read,hr-write:9f86d0…
//
// which is the Unix time in seconds, the user, the roles with commas, and the
// HMAC-SHA256 in hex of what stands before its colon. It says neither who calls
// nor whom, may be used again for 30 seconds, and whoever can read it can sign
// it. Accept it while services move to certificates, and no longer.
type Shared struct{ Key secrets.Secret }

// Window is how long a shared token is good, and how far the clocks may be
// apart.
const Window = 30 * time.Second

// minKey is the shortest key, in bytes: that of the hash, after RFC 2104,
// section 3.
const minKey = sha256.Size

// Sign returns a token. Its user and roles may hold no colon, its roles no
// comma.
func (s Shared) Sign(u User, now time.Time) (string, error) {
	if err := u.check(); err != nil {
		return "", fmt.Errorf("assertion: %w", err)
	}
	roles := strings.Join(u.Roles, ",")
	if u.ID == "" || strings.Contains(u.ID, ":") || strings.Contains(roles, ":") || strings.Count(roles, ",") > max(len(u.Roles)-1, 0) {
		return "", errors.New("assertion: a shared token cannot carry this user: it needs an ID, and allows no colon, and no comma in roles")
	}
	signed := strconv.FormatInt(now.Unix(), 10) + ":" + u.ID + ":" + roles
	mac, err := s.mac(signed)
	if err != nil {
		return "", err
	}
	return signed + ":" + hex.EncodeToString(mac), nil
}

// Verify returns the user of a token. Any that is not good is ErrRefused.
func (s Shared) Verify(token string, now time.Time) (User, error) {
	at := strings.LastIndexByte(token, ':')
	if len(token) > maxToken || at < 0 {
		return User{}, refuse("it is no shared token")
	}
	given, err := hex.DecodeString(token[at+1:])
	if err != nil {
		return User{}, refuse("its HMAC is not in hex")
	}
	mac, err := s.mac(token[:at])
	if err != nil {
		return User{}, err
	}
	if !hmac.Equal(mac, given) {
		return User{}, refuse("its HMAC is wrong")
	}
	parts := strings.Split(token[:at], ":")
	if len(parts) != 3 {
		return User{}, refuse("it has %d fields, not 3", len(parts))
	}
	seconds, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return User{}, refuse("its time does not read")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age >= Window || age <= -Window {
		return User{}, refuse("it is more than %s old or early; compare the clocks", Window)
	}
	u := User{ID: parts[1]}
	if parts[2] != "" {
		u.Roles = strings.Split(parts[2], ",")
	}
	if u.ID == "" || u.check() != nil {
		return User{}, refuse("its user has no ID, or one that no header could carry")
	}
	return u, nil
}

func (s Shared) mac(text string) ([]byte, error) {
	key := s.Key.Bytes()
	defer clear(key)
	if len(key) < minKey {
		return nil, fmt.Errorf("assertion: the shared key has %d bytes, and %d are the least", len(key), minKey)
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil), nil
}
