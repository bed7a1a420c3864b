package bootstrap

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// source is where SecretIDs come from: first from a value, if there is one, and
// then again and again from a file.
type source struct {
	cfg *Config

	mu    sync.Mutex
	tried [sha256.Size]byte // what was used last, so that a file that cannot be removed is used once
}

// candidate is a SecretID that has not been used yet.
type candidate struct {
	secretID secrets.Secret // bare, or the token that wraps it
	roleID   string
	digest   [sha256.Size]byte
	from     string // for events
	spare    bool   // it is for when a new token is needed, and not before
}

// maxSecretIDFile bounds a SecretID's file in bytes.
const maxSecretIDFile = 64 << 10

// path is the file that a hand-over would replace; "" if there is none.
func (s *source) path() string {
	if s.cfg.SealedFile != "" {
		return s.cfg.SealedFile
	}
	return s.cfg.SecretIDFile
}

// first returns the SecretID that is at hand at the start: the value if there
// is one, and otherwise what is in the file. Its errors are those of next.
func (s *source) first() (c candidate, err error) {
	if s.cfg.SecretID.IsZero() {
		return s.next()
	}
	from := "Config.SecretID"
	if s.cfg.fromEnv != "" {
		from = s.cfg.fromEnv
	}
	secmem.Do(func() { c, err = parseSecretID(s.cfg.Service, s.cfg.SecretID.Bytes()) })
	c.from = from
	return s.fresh(c, err)
}

// next returns the SecretID in the file. Errors: ErrNoSecretID if there is
// none, ErrSecretIDSpent if it is the one that was used before, ErrConfig if it
// has no usable form.
func (s *source) next() (c candidate, err error) {
	secmem.Do(func() { c, err = s.read() })
	return c, err
}

func (s *source) read() (candidate, error) {
	path := s.path()
	if path == "" {
		return candidate{}, fmt.Errorf("%w: no source is set", ErrNoSecretID)
	}
	data, err := readSmall(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return candidate{}, fmt.Errorf("%w: %s does not exist", ErrNoSecretID, path)
	case err != nil:
		return candidate{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 && s.cfg.SealedFile == "" {
		s.cfg.Logger.Warn("others on this host may read the SecretID's file; give it mode 0600", "file", path, "mode", info.Mode().Perm())
	}
	c, err := candidate{}, error(nil)
	if s.cfg.SealedFile != "" {
		var vars map[string]secrets.Secret
		if vars, err = sealed.Open(data, s.cfg.IdentityFile); err != nil {
			err = fmt.Errorf("%w: %w", ErrConfig, err)
		} else {
			c, err = fromVars(s.cfg.Service, vars)
		}
	} else {
		c, err = parseSecretID(s.cfg.Service, data)
	}
	c.from = path
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return s.fresh(c, nil)
}

// fresh refuses what has been used already.
func (s *source) fresh(c candidate, err error) (candidate, error) {
	if err != nil {
		return c, err
	}
	c.digest = sha256.Sum256(c.secretID.Bytes())
	if c.roleID == "" {
		c.roleID = s.cfg.RoleID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.digest == s.tried {
		c.secretID.Wipe()
		return c, fmt.Errorf("%w: %s still holds the last one", ErrSecretIDSpent, c.from)
	}
	return c, nil
}

// use remembers that c is about to be spent.
func (s *source) use(c candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = c.digest
}

// spent is the digest of what was used last, and recall makes another source
// know it: its file may still be there.
func (s *source) spent() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.tried[:])
}

func (s *source) recall(digest []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.tried[:], digest)
}

// release forgets that c was used: it was not, as Vault was not there.
func (s *source) release(c candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried == c.digest {
		s.tried = [sha256.Size]byte{}
	}
}

// remove deletes the file that c came from, unless it holds something newer by
// now, and reports whether it did. The error says why it is still there.
func (s *source) remove(c candidate) (bool, error) {
	path := s.cfg.SecretIDFile
	// A sealed file holds other services' SecretIDs too.
	if path == "" || s.cfg.SealedFile != "" || c.from != path {
		return false, nil
	}
	// First out of the way, then looked at: between a look and a removal a
	// hand-over could replace it.
	private := path + "." + rand.Text()
	if err := os.Rename(path, private); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if s.holdsAnother(private, c) {
		// It was newer. It goes back, unless there is something newer still.
		_ = os.Link(private, path)
		return false, os.Remove(private)
	}
	return true, os.Remove(private)
}

// holdsAnother reports whether a file has a SecretID that is not c.
func (s *source) holdsAnother(path string, c candidate) (another bool) {
	secmem.Do(func() {
		data, err := readSmall(path)
		if err != nil {
			return
		}
		if now, err := parseSecretID(s.cfg.Service, data); err == nil {
			another = sha256.Sum256(now.secretID.Bytes()) != c.digest
			now.secretID.Wipe()
		}
	})
	return another
}

// How often a hand-over is looked for, and while nothing else can happen.
const (
	handoverPoll = 5 * time.Second
	parkedPoll   = time.Second
)

// wait returns the next SecretID that has not been used yet; a spare only when
// it is needed, which nil always is. It looks at the file's name, size and
// times, and reads it only when these have changed, or when there is need of
// the spare in it. said is told of what is there but cannot be used.
func (s *source) wait(ctx context.Context, every time.Duration, needed func() bool, said func(error)) (candidate, error) {
	var seen os.FileInfo
	last, spare := "", false
	for {
		info, err := os.Stat(s.path())
		changed := err == nil && (seen == nil || info.ModTime() != seen.ModTime() || info.Size() != seen.Size() || !os.SameFile(info, seen))
		if changed || err == nil && spare && needed != nil && needed() {
			c, err := s.next()
			seen, spare = info, c.spare
			switch {
			case err == nil && (!spare || needed == nil || needed()):
				return c, nil
			case err == nil:
				s.cfg.Logger.Debug("a spare SecretID lies ready; it is left there until it is needed", "file", c.from)
			case errors.Is(err, ErrSecretIDSpent), errors.Is(err, ErrNoSecretID):
			case err.Error() != last:
				last = err.Error()
				said(err)
			}
		}
		timer := time.NewTimer(every + time.Duration(s.cfg.Rand()*float64(every)/5))
		select {
		case <-ctx.Done():
			timer.Stop()
			return candidate{}, ctx.Err()
		case <-timer.C:
		}
	}
}

// readSmall reads a regular file of bounded size: a pipe would hang the start.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretIDFile+1))
	if err == nil && len(data) > maxSecretIDFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSecretIDFile)
	}
	return data, err
}

// parseSecretID reads a SecretID alone, or lines NAME=value that hold this
// service's.
func parseSecretID(service string, data []byte) (candidate, error) {
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return candidate{}, fmt.Errorf("%w: it is empty", ErrNoSecretID)
	case strings.Contains(text, "="):
		vars, err := sealed.ParseEnv(data)
		if err != nil {
			return candidate{}, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		return fromVars(service, vars)
	case len(text) > 4096 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return candidate{}, fmt.Errorf("%w: it is no SecretID: expected one line without spaces", ErrConfig)
	}
	return candidate{secretID: secrets.NewString(text)}, nil
}

func fromVars(service string, vars map[string]secrets.Secret) (candidate, error) {
	pick := func(names ...string) secrets.Secret {
		for _, name := range names {
			if v := vars[name]; !v.IsZero() {
				return v
			}
		}
		return secrets.Secret{}
	}
	c := candidate{
		secretID: pick(EnvName(service, "SECRET_ID"), "VAULT_SECRET_ID"),
		roleID:   pick(EnvName(service, "ROLE_ID"), "VAULT_ROLE_ID").Reveal(),
		spare:    !vars["PHOENIX_STANDBY"].IsZero(), // as the resident issuer marks it
	}
	if c.secretID.IsZero() {
		return c, fmt.Errorf("%w: it has no %s", ErrNoSecretID, EnvName(service, "SECRET_ID"))
	}
	return c, nil
}
