package bootstrap

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// A ticket is what a session leaves for the next one of its service.
type ticket struct {
	wrapping  secrets.Secret // wraps the token
	accessor  string         // of the token, by which an operator can revoke it
	expires   time.Time      // of the wrapping
	lastSpent []byte         // the digest of the SecretID that was used last
	wrapped   time.Time      // by Vault's clock: a ticket that was wrapped again shows in the events
	revoked   bool           // the token was revoked
}

// The names in a ticket's file, which has the form of an env file.
const (
	ticketToken    = "PHOENIX_TICKET"
	ticketAccessor = "PHOENIX_TICKET_ACCESSOR"
	ticketExpires  = "PHOENIX_TICKET_EXPIRES"
	ticketSpent    = "PHOENIX_TICKET_SPENT"
)

// write puts the ticket into a file that must not exist yet.
func (t *ticket) write(path string) error {
	private := privateName(path)
	f, err := os.OpenFile(private, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(private) //nolint:errcheck // it has its other name by then, or is of no use
	// Not by fmt, which would keep the token in its buffers.
	secmem.Do(func() {
		_, err = f.Write(append(t.wrapping.AppendTo([]byte(ticketToken+"=")), '\n'))
	})
	if err == nil {
		_, err = fmt.Fprintf(f, "%s=%s\n%s=%s\n%s=%x\n", ticketAccessor, t.accessor,
			ticketExpires, t.expires.UTC().Format(time.RFC3339), ticketSpent, t.lastSpent)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	// A link, because a rename would replace the ticket of another instance,
	// and leave its token to nobody.
	return os.Link(private, path)
}

// readTicket reads a file that a session left. It must be as write makes it.
func readTicket(path string) (*ticket, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || !ours(info) {
		return nil, fmt.Errorf("it is no file of this user with mode 0600, but %v", info.Mode())
	}
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	return parseTicket(data)
}

func parseTicket(data []byte) (*ticket, error) {
	vars, err := sealed.ParseEnv(data)
	if err != nil {
		return nil, err
	}
	t := &ticket{wrapping: vars[ticketToken], accessor: vars[ticketAccessor].Reveal()}
	if !vault.IsWrapping(t.wrapping) || !goodName.MatchString(t.accessor) {
		return nil, fmt.Errorf("its %s or its %s is none", ticketToken, ticketAccessor)
	}
	if t.expires, err = time.Parse(time.RFC3339, vars[ticketExpires].Reveal()); err != nil {
		return nil, fmt.Errorf("its %s is no time", ticketExpires)
	}
	if t.lastSpent, err = hex.DecodeString(vars[ticketSpent].Reveal()); err != nil || len(t.lastSpent) != sha256.Size {
		return nil, fmt.Errorf("its %s is no digest", ticketSpent)
	}
	return t, nil
}

// privateName is a name that nobody else uses, in the same folder.
func privateName(path string) string { return path + "." + rand.Text() }

// putBack undoes the renaming of path to private, unless there is a newer file
// by now.
func putBack(private, path string) {
	_ = os.Link(private, path)
	_ = os.Remove(private)
}

// checkTicketFolder refuses a TicketFile that would be on a disk, or where
// others could leave one of theirs.
func (cfg *Config) checkTicketFolder() error {
	if cfg.TicketFile == "" {
		return nil
	}
	bad := func(remedy, format string, args ...any) error {
		return &Error{Step: "read the configuration", Err: fmt.Errorf("%w: TicketFile %s: %w", ErrConfig, cfg.TicketFile, fmt.Errorf(format, args...)), Remedy: remedy}
	}
	folder := filepath.Dir(cfg.TicketFile)
	info, err := os.Stat(folder)
	if err != nil {
		return bad("make the folder before the service starts, for its user alone", "%w", err)
	}
	if !info.IsDir() {
		return bad("name a file in a folder on a tmpfs", "%w: %s is no folder", fs.ErrInvalid, folder)
	}
	if info.Mode().Perm()&0o022 != 0 || !ours(info) {
		return bad("give it to the service's user alone: chmod 0700 "+folder, "others may write into %s (%v)", folder, info.Mode())
	}
	if cfg.AllowTicketOnDisk {
		return nil
	}
	switch volatile, err := inMemory(folder); {
	case err != nil:
		return bad("name a file on a tmpfs, like /run/"+cfg.Service+"/ticket", "%w", err)
	case !volatile:
		return bad("name a file on a tmpfs, like /run/"+cfg.Service+"/ticket, or set AllowTicketOnDisk", "%s is not on a tmpfs", folder)
	}
	return nil
}
