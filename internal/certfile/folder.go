package certfile

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tamshai/phoenix/tlsconfig"
)

// Spec says how a folder is to be.
type Spec struct {
	Dir      string      // is made, 0755, if its parent is there
	Formats  []string    // "pem", "combined", "pkcs8", "pkcs12"
	UID, GID int         // of the files; -1: whoever writes them
	Mode     os.FileMode // of those that hold the key; the others have 0444 besides
}

// A Folder is fit to be written.
type Folder struct{ spec Spec }

const (
	current = "..current" // the link to what counts
	version = "..v-"      // begins the names of the hidden folders
	pending = "..reload"  // is there while who reads the files has not been told
)

// Open checks a folder and makes it if it is not there.
func Open(spec Spec) (*Folder, error) {
	f := &Folder{spec}
	info, err := os.Stat(spec.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Mkdir(spec.Dir, 0o755); err != nil { //nolint:gosec // the files have modes of their own
			return nil, fmt.Errorf("%w; make the folder above it first", err)
		}
		return f, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is no folder; name one", spec.Dir)
	case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		return nil, fmt.Errorf("others can write to %s, and so replace the key; take that away: chmod go-w %s", spec.Dir, spec.Dir)
	}
	return f, nil
}

// Write replaces what is in the folder. If it fails the old files stay as they
// were. Until Reloaded is called, Pending is true.
func (f *Folder) Write(m Material) (err error) {
	files, err := m.encode(f.spec.Formats)
	if err != nil {
		return fmt.Errorf("%s: %w", f.spec.Dir, err)
	}
	defer func() {
		for _, one := range files {
			if one.secret {
				clear(one.data)
			}
		}
	}()
	before, err := f.versions()
	if err != nil {
		return err
	}
	name := version + strings.ToLower(rand.Text())
	dir := filepath.Join(f.spec.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // the files have modes of their own
		return err
	}
	swapped := false
	defer func() {
		if !swapped {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, one := range files {
		if err := f.put(filepath.Join(dir, one.name), one); err != nil {
			return err
		}
	}
	if err := os.WriteFile(f.path(pending), nil, 0o600); err != nil {
		return err
	}
	if err := errors.Join(syncDir(dir), f.link(current, name)); err != nil {
		return err
	}
	swapped = true
	for _, one := range files {
		if err := f.link(one.name, filepath.Join(current, one.name)); err != nil {
			// What counts is whole, and the next run makes the link.
			return fmt.Errorf("%s: the files are written, and cannot all be linked: %w", f.spec.Dir, err)
		}
	}
	for _, old := range before {
		if removeErr := os.RemoveAll(f.path(old)); removeErr != nil {
			return fmt.Errorf("%s: an old key cannot be removed: %w", f.spec.Dir, removeErr)
		}
	}
	return syncDir(f.spec.Dir)
}

func (f *Folder) path(name string) string { return filepath.Join(f.spec.Dir, name) }

// versions are the hidden folders, what was left by a writer that was killed
// among them.
func (f *Folder) versions() ([]string, error) {
	entries, err := os.ReadDir(f.spec.Dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), version) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// put writes one file; it is readable when it has its owner.
func (f *Folder) put(path string, one file) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o200)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	mode := f.spec.Mode
	if !one.secret {
		mode |= 0o444
	}
	if f.spec.UID != -1 || f.spec.GID != -1 {
		if err := out.Chown(f.spec.UID, f.spec.GID); err != nil {
			return fmt.Errorf("%w; run as root to give files away", err)
		}
	}
	if _, err := out.Write(one.data); err != nil {
		return err
	}
	return errors.Join(out.Chmod(mode), out.Sync())
}

// link makes name a link to target, in one step.
func (f *Folder) link(name, target string) error {
	if have, err := os.Readlink(f.path(name)); err == nil && have == target {
		return nil
	}
	temp := f.path("..l-" + strings.ToLower(rand.Text()))
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, f.path(name)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Pending reports whether the files have been replaced since Reloaded.
func (f *Folder) Pending() bool {
	_, err := os.Lstat(f.path(pending))
	return err == nil
}

// Reloaded notes that whoever reads the files has been told.
func (f *Folder) Reloaded() error {
	if err := os.Remove(f.path(pending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Read returns the certificate and the authorities that are there. It is
// fs.ErrNotExist if nothing is, or a file of the formats is missing.
func (f *Folder) Read() (leaf *x509.Certificate, ca []*x509.Certificate, err error) {
	names := []string{"tls.crt", "ca.crt"}
	for format, name := range map[string]string{"pem": "tls.key", "combined": "tls.pem", "pkcs8": "tls.pk8", "pkcs12": "tls.p12"} {
		if slices.Contains(f.spec.Formats, format) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if _, err := os.Stat(f.path(name)); err != nil {
			return nil, nil, err
		}
	}
	read := func(name string) ([]*x509.Certificate, error) {
		text, err := os.ReadFile(f.path(name))
		if err != nil {
			return nil, err
		}
		certs, err := tlsconfig.ParseCertificates(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path(name), err)
		}
		return certs, nil
	}
	chain, err := read("tls.crt")
	if err != nil {
		return nil, nil, err
	}
	if ca, err = read("ca.crt"); err != nil {
		return nil, nil, err
	}
	return chain[0], ca, nil
}
