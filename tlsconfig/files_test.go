package tlsconfig_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A folder holds the three files, replaced as people replace them.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) put(name string, text []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name+".new"), text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path(name+".new"), f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) config() tlsconfig.FilesConfig {
	return tlsconfig.FilesConfig{Cert: f.path("cert.pem"), Key: f.path("key.pem"), Bundle: f.path("ca.pem"), Interval: time.Second}
}

func TestFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := folder{t, t.TempDir()}
		ca, next := testpki.NewCA("ours"), testpki.NewCA("next")
		first, second := ca.Issue(serverSpec), ca.Issue(serverSpec)
		f.put("cert.pem", first.CertPEM())
		f.put("key.pem", first.KeyPEM())
		f.put("ca.pem", testpki.PEM(ca.Cert))
		var log lockedBuffer
		cfg := f.config()
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		files, err := tlsconfig.OpenFiles(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		// step waits for the next look and compares.
		generation := uint64(1)
		step := func(what string, changed bool, says string) {
			t.Helper()
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if changed {
				generation++
			}
			if got := files.Current().Generation(); got != generation {
				t.Errorf("%s: generation %d, want %d", what, got, generation)
			}
			if err := files.Err(); (err == nil) != (says == "") || (err != nil && !strings.Contains(err.Error(), says)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		step("nothing happens", false, "")

		f.put("cert.pem", second.CertPEM())
		step("half of the pair", false, "not the key of the certificate")
		step("still half", false, "not the key of the certificate")
		f.put("key.pem", second.KeyPEM())
		step("the other half", true, "")
		if got := files.Current().Leaf().SerialNumber; got.Cmp(second.Leaf().SerialNumber) != 0 {
			t.Errorf("current is %v", got)
		}

		text := first.CertPEM()
		if err := os.WriteFile(f.path("cert.pem"), text[:len(text)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		step("truncated", false, "cut off")
		f.put("cert.pem", second.CertPEM())
		step("as it was, in a new file", true, "")

		f.put("ca.pem", testpki.PEM(next.Cert))
		step("a bundle that our own certificate does not stand up against", false, "no authority in the trust bundle")
		f.put("ca.pem", testpki.PEM(ca.Cert, next.Cert))
		step("both authorities", true, "")
		if n := len(files.Current().Bundle()); n != 2 {
			t.Errorf("%d authorities", n)
		}

		os.Remove(f.path("key.pem"))
		step("a file is gone", false, "no such file")
		f.put("key.pem", second.KeyPEM())
		step("it is back", true, "")

		expired := serverSpec
		expired.NotAfter = time.Now().Add(-time.Minute)
		old := ca.Issue(expired)
		f.put("cert.pem", old.CertPEM())
		f.put("key.pem", old.KeyPEM())
		step("expired", false, "expired at")
		if n := strings.Count(log.String(), "expired at"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if strings.Contains(log.String(), "PRIVATE KEY-----") {
			t.Error("the log holds a key")
		}
	})
}

// Kubernetes mounts a secret as links to a folder behind the link ..data, and
// replaces that link: three files change at once, and none is written.
func TestFilesBehindLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca, next := testpki.NewCA("ours"), testpki.NewCA("next")
		mount := func(version string, p testpki.Pair, trusted ...*testpki.CA) {
			t.Helper()
			real := filepath.Join(dir, version)
			link := func(to, name string) {
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(real, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string][]byte{"cert.pem": p.CertPEM(), "key.pem": p.KeyPEM(), "ca.pem": testpki.PEM(certs(trusted)...)} {
				if err := os.WriteFile(filepath.Join(real, name), text, 0o600); err != nil {
					t.Fatal(err)
				}
				link(filepath.Join("..data", name), name)
			}
			link(version, "..data_tmp")
			if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		first, second := ca.Issue(serverSpec), next.Issue(serverSpec)
		mount("..2026_1", first, ca)
		f := folder{t, dir}
		files, err := tlsconfig.OpenFiles(t.Context(), f.config())
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		mount("..2026_2", second, ca, next)
		if err := os.RemoveAll(filepath.Join(dir, "..2026_1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if m := files.Current(); m.Generation() != 2 || !m.Leaf().Equal(second.Leaf()) || len(m.Bundle()) != 2 || files.Err() != nil {
			t.Errorf("%v, %v", m, files.Err())
		}
		// And back, as when a deployment is undone.
		mount("..2026_3", first, ca)
		if err := files.Reload(); err != nil || !files.Current().Leaf().Equal(first.Leaf()) || len(files.Current().Bundle()) != 1 {
			t.Errorf("back: %v, %v", files.Current(), err)
		}
		// The folder behind the link is gone: what was good stays.
		if err := os.RemoveAll(filepath.Join(dir, "..2026_3")); err != nil {
			t.Fatal(err)
		}
		if err := files.Reload(); err == nil || files.Current().Generation() != 3 {
			t.Errorf("a link to nowhere: %v, %v", files.Current(), err)
		}
	})
}

func TestOpenFilesRefuses(t *testing.T) {
	f := folder{t, t.TempDir()}
	ca := testpki.NewCA("ours")
	p := ca.Issue(serverSpec)
	if _, err := tlsconfig.OpenFiles(t.Context(), f.config()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	f.put("cert.pem", p.CertPEM())
	f.put("key.pem", testpki.SelfSigned(serverSpec).KeyPEM())
	f.put("ca.pem", testpki.PEM(ca.Cert))
	if _, err := tlsconfig.OpenFiles(t.Context(), f.config()); err == nil || !strings.Contains(err.Error(), "not the key") {
		t.Error(err)
	}
	if _, err := tlsconfig.OpenFiles(t.Context(), tlsconfig.FilesConfig{}); err == nil {
		t.Error("no paths")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tlsconfig.OpenFiles(ended, f.config()); err == nil {
		t.Error("a context that has ended")
	}
}

// One file may hold certificate and key, as MongoDB wants it. One that every
// user can read is used, with a warning.
func TestCombinedFile(t *testing.T) {
	f := folder{t, t.TempDir()}
	ca := testpki.NewCA("ours")
	p := ca.Issue(serverSpec)
	f.put("both.pem", append(p.CertPEM(), p.KeyPEM()...))
	f.put("ca.pem", testpki.PEM(ca.Cert))
	os.Chmod(f.path("both.pem"), 0o644)
	var log lockedBuffer
	files, err := tlsconfig.OpenFiles(t.Context(), tlsconfig.FilesConfig{Cert: f.path("both.pem"), Bundle: f.path("ca.pem"), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	files.Close()
	if files.Current().Generation() != 1 || !strings.Contains(log.String(), "0640") {
		t.Error(log.String())
	}
}
