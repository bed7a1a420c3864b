package provision

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// An Owner is a user and a group of this host.
type Owner struct{ UID, GID int }

// spareFile is where a service's spare lies. The folder may belong to the
// service, which is not trusted: nothing in it is followed.
type spareFile struct {
	path  string
	owner *Owner // nil: the folder's
	disk  bool   // it need not be in memory
}

// check refuses a folder where others could replace the file, or that is on a
// disk, and returns its owner.
func (f spareFile) check() (Owner, error) {
	dir := filepath.Dir(f.path)
	info, err := os.Lstat(dir)
	if err != nil {
		return Owner{}, fmt.Errorf("%w; make the folder first", err)
	}
	const othersWrite = 0o022
	switch {
	case !info.IsDir():
		return Owner{}, fmt.Errorf("%s is not a folder; name the folder itself", dir)
	case info.Mode().Perm()&othersWrite != 0:
		return Owner{}, fmt.Errorf("others can write to %s, and so replace the file; take that away: chmod go-w %s", dir, dir)
	}
	if memory, err := inMemory(dir); err != nil {
		return Owner{}, err
	} else if !memory && !f.disk {
		return Owner{}, fmt.Errorf("%s is on a disk, where a SecretID outlives its deletion; use a folder below /run or another tmpfs, or permit disks", dir)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Owner{}, fmt.Errorf("whose %s is cannot be found out on this system", dir)
	}
	return Owner{int(stat.Uid), int(stat.Gid)}, nil
}

// look returns what is there, nil if there is nothing.
func (f spareFile) look() (fs.FileInfo, error) {
	info, err := os.Lstat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file; remove it, and find out who put it there", f.path)
	}
	return info, nil
}

// maxSpare bounds a file in bytes.
const maxSpare = 64 << 10

// read returns the SecretID in the file, wrapped or not.
func (f spareFile) read(service string, seen fs.FileInfo) (secrets.Secret, error) {
	// It may have become a link or a pipe since it was seen.
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return secrets.Secret{}, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !os.SameFile(info, seen) {
		return secrets.Secret{}, fmt.Errorf("%s changes while it is read", f.path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSpare+1))
	defer clear(data)
	if err != nil {
		return secrets.Secret{}, err
	}
	return parseSpare(service, data)
}

// errNoSpare is a file that holds something else.
var errNoSpare = errors.New("it holds no SecretID of this service; remove it, or give the issuer another file")

// parseSpare reads what "phoenix issue" writes for a service, or a SecretID
// alone.
func parseSpare(service string, data []byte) (secrets.Secret, error) {
	if len(data) > maxSpare {
		return secrets.Secret{}, errNoSpare
	}
	if text := strings.TrimSpace(string(data)); !strings.Contains(text, "=") {
		if text == "" || len(text) > 4096 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return secrets.Secret{}, errNoSpare
		}
		return secrets.NewString(text), nil
	}
	vars, err := sealed.ParseEnv(data)
	if err != nil {
		return secrets.Secret{}, fmt.Errorf("%w (%w)", errNoSpare, err)
	}
	for _, name := range []string{envName(service) + "SECRET_ID", "VAULT_SECRET_ID"} {
		if value := vars[name]; !value.IsZero() {
			return value, nil
		}
	}
	return secrets.Secret{}, errNoSpare
}

// write replaces the file in one step: it holds the old or the new, whatever
// happens.
func (f spareFile) write(data []byte) (fs.FileInfo, error) {
	folder, err := f.check()
	if err != nil {
		return nil, err
	}
	owner := folder
	if f.owner != nil {
		owner = *f.owner
	}
	file, err := renameio.NewPendingFile(f.path, renameio.WithTempDir(filepath.Dir(f.path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return nil, err
	}
	defer file.Cleanup() //nolint:errcheck // it has its other name by then, or is of no use
	if owner.UID != os.Geteuid() || owner.GID != os.Getegid() {
		if err := file.Chown(owner.UID, owner.GID); err != nil {
			return nil, fmt.Errorf("give the file to %d:%d: %w; run the issuer with CAP_CHOWN", owner.UID, owner.GID, err)
		}
	}
	if _, err := file.Write(data); err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return info, file.CloseAtomicallyReplace()
}

// same reports whether b is a, untouched.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// Credential is what the resident issuer logs in with.
type Credential struct {
	RoleID   string
	SecretID secrets.Secret
	Expires  time.Time // zero: not known
}

// CredentialFile returns a function for IssuerConfig.Credential that reads the
// file which "phoenix issue --issuer" wrote, each time, so that a new one in
// its place is taken.
func CredentialFile(estate *Estate, path string) func() (Credential, error) {
	return func() (Credential, error) {
		fail := func(err error) (Credential, error) {
			return Credential{}, fmt.Errorf("provision: the issuer's credential %s: %w", path, err)
		}
		if estate.Issuer == nil {
			return fail(errors.New("the estate has no vault.issuer"))
		}
		file, err := os.Open(path)
		if err != nil {
			return fail(err)
		}
		defer file.Close()
		data, err := io.ReadAll(io.LimitReader(file, maxSpare))
		defer clear(data)
		if err != nil {
			return fail(err)
		}
		vars, err := sealed.ParseEnv(data)
		if err != nil {
			return fail(err)
		}
		prefix := envName(estate.Issuer.Role)
		c := Credential{RoleID: vars[prefix+"ROLE_ID"].Reveal(), SecretID: vars[prefix+"SECRET_ID"]}
		if c.RoleID == "" || c.SecretID.IsZero() || vault.IsWrapping(c.SecretID) {
			return fail(fmt.Errorf("it lacks %sROLE_ID or %sSECRET_ID; make it with phoenix issue --issuer", prefix, prefix))
		}
		if text := vars[prefix+"EXPIRES"]; !text.IsZero() {
			if c.Expires, err = time.Parse(time.RFC3339, text.Reveal()); err != nil {
				return fail(fmt.Errorf("%sEXPIRES is no time like 2026-12-31T00:00:00Z", prefix))
			}
		}
		return c, nil
	}
}
