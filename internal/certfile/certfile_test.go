package certfile_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/tamshai/phoenix/internal/certfile"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/secrets"
)

var formats = []string{"pem", "combined", "pkcs8", "pkcs12"}

func material(root, ca *testpki.CA) certfile.Material {
	pair := ca.Issue(testpki.Spec{CN: "postgres", DNS: []string{"postgres"}})
	return certfile.Material{
		Leaf: testpki.PEM(pair.Leaf()), Chain: testpki.PEM(ca.Cert), CA: testpki.PEM(root.Cert),
		Key: secrets.New(pair.KeyPEM()), Password: secrets.NewString("a password"),
	}
}

func authorities() (root, ca *testpki.CA) {
	root = testpki.NewCA("root")
	return root, root.Intermediate("intermediate")
}

func open(t *testing.T, spec certfile.Spec) *certfile.Folder {
	t.Helper()
	f, err := certfile.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func spec(dir string, formats ...string) certfile.Spec {
	return certfile.Spec{Dir: dir, Formats: formats, UID: -1, GID: -1, Mode: 0o600}
}

func TestFormats(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	f := open(t, spec(dir, formats...))
	m := material(authorities())
	if err := f.Write(m); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	crt := read("tls.crt")
	pair, err := tls.X509KeyPair(crt, read("tls.key"))
	if err != nil || len(pair.Certificate) != 2 {
		t.Fatalf("pem: %d certificates, %v", len(pair.Certificate), err)
	}
	combined, err := tls.X509KeyPair(read("tls.pem"), read("tls.pem"))
	if err != nil || len(combined.Certificate) != 2 {
		t.Errorf("combined: %v", err)
	}
	if _, err := tls.X509KeyPair(crt, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: read("tls.pk8")})); err != nil {
		t.Errorf("pkcs8: %v", err)
	}
	key, leaf, chain, err := pkcs12.DecodeChain(read("tls.p12"), "a password")
	if err != nil {
		t.Fatal(err)
	}
	if own, ok := key.(*ecdsa.PrivateKey); !ok || !own.PublicKey.Equal(leaf.PublicKey) || string(leaf.Raw) != string(pair.Certificate[0]) || len(chain) != 1 {
		t.Errorf("pkcs12: %T with %d intermediates", key, len(chain))
	}
	trusted, err := pkcs12.DecodeTrustStore(read("ca.p12"), "a password")
	if err != nil || len(trusted) != 1 || trusted[0].Subject.CommonName != "root" {
		t.Errorf("trust store: %v, %v", trusted, err)
	}
	for _, name := range []string{"tls.key", "tls.pem", "tls.pk8", "tls.p12"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, name := range []string{"tls.crt", "ca.crt", "ca.p12"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		if strings.Contains(string(read(name)), "PRIVATE KEY") {
			t.Errorf("%s holds a key", name)
		}
	}
	got, ca, err := f.Read()
	if err != nil || string(got.Raw) != string(pair.Certificate[0]) || len(ca) != 1 {
		t.Errorf("read back: %v, %v", ca, err)
	}
}

// Whoever follows ..current once gets files that belong together, however often
// they are replaced, and old keys do not stay.
func TestReplacedInOneStep(t *testing.T) {
	dir := t.TempDir()
	f := open(t, spec(dir, "pem"))
	root, ca := authorities()
	if err := f.Write(material(root, ca)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for seen := 0; ; {
			select {
			case <-stop:
				if seen == 0 {
					t.Error("the reader saw nothing")
				}
				return
			default:
			}
			at, err := filepath.EvalSymlinks(filepath.Join(dir, "..current"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was replaced between two steps of the look
			}
			if err != nil {
				t.Error(err)
				return
			}
			crt, err1 := os.ReadFile(filepath.Join(at, "tls.crt"))
			key, err2 := os.ReadFile(filepath.Join(at, "tls.key"))
			if errors.Is(errors.Join(err1, err2), fs.ErrNotExist) {
				continue
			}
			if _, err := tls.X509KeyPair(crt, key); err != nil {
				t.Errorf("a pair that does not fit: %v", err)
				return
			}
			seen++
		}
	})
	for range 50 {
		if err := f.Write(material(root, ca)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	reader.Wait()
	if got := hidden(t, dir); len(got) != 1 {
		t.Errorf("%d versions are left: %q", len(got), got)
	}
}

func hidden(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), "..l-") {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestAFailureLeavesTheOld(t *testing.T) {
	root, ca := authorities()
	bad := map[string]func(m *certfile.Material){
		"no key":        func(m *certfile.Material) { m.Key = secrets.NewString("none") },
		"another's key": func(m *certfile.Material) { m.Key = material(root, ca).Key },
		"no password":   func(m *certfile.Material) { m.Password = secrets.Secret{} },
		"no leaf":       func(m *certfile.Material) { m.Leaf = nil; m.Chain = nil },
		"no CA":         func(m *certfile.Material) { m.CA = []byte("none") },
	}
	for name, spoil := range bad {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := open(t, spec(dir, formats...))
			if err := f.Write(material(root, ca)); err != nil {
				t.Fatal(err)
			}
			before, _, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			m := material(root, ca)
			spoil(&m)
			if err := f.Write(m); err == nil {
				t.Error("it was written")
			}
			if after, _, err := f.Read(); err != nil || !after.Equal(before) || len(hidden(t, dir)) != 1 {
				t.Errorf("the old is not there any more, or more than it: %v", err)
			}
		})
	}
}

// What a killed writer has left goes with the next write.
func TestWhatAKilledWriterLeft(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "..v-left")
	if err := errors.Join(os.Mkdir(left, 0o755), os.WriteFile(filepath.Join(left, "tls.key"), []byte("half a k"), 0o200)); err != nil {
		t.Fatal(err)
	}
	f := open(t, spec(dir, "pem"))
	if _, _, err := f.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it reads as %v", err)
	}
	if err := f.Write(material(authorities())); err != nil {
		t.Fatal(err)
	}
	if got := hidden(t, dir); len(got) != 1 || slices.Contains(got, "..v-left") {
		t.Errorf("left: %q", got)
	}
}

func TestPendingUntilReloaded(t *testing.T) {
	f := open(t, spec(t.TempDir(), "pem"))
	if f.Pending() {
		t.Error("nothing was written, and it is pending")
	}
	if err := f.Write(material(authorities())); err != nil || !f.Pending() {
		t.Errorf("after a write: %v, %v", f.Pending(), err)
	}
	if err := errors.Join(f.Reloaded(), f.Reloaded()); err != nil || f.Pending() {
		t.Errorf("after the reload: %v, %v", f.Pending(), err)
	}
}

// A format that was added is missing.
func TestReadMissesAFormat(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, spec(dir, "pem")).Write(material(authorities())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t, spec(dir, "pem", "combined")).Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestFoldersThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	file, wide := filepath.Join(dir, "file"), filepath.Join(dir, "wide")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(wide, 0o700), os.Chmod(wide, 0o777)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                 "is no folder",
		wide:                                 "chmod go-w",
		filepath.Join(dir, "no", "such"):     "make the folder above it first",
		filepath.Join(file, "below", "file"): "",
	} {
		if _, err := certfile.Open(spec(path, "pem")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := open(t, spec(filepath.Join(dir, "new"), "pkcs7")).Write(material(authorities())); err == nil || !strings.Contains(err.Error(), `unknown format "pkcs7"`) {
		t.Errorf("an unknown format: %v", err)
	}
}

func Example() {
	dir, err := os.MkdirTemp("/dev/shm", "example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	folder, err := certfile.Open(certfile.Spec{Dir: dir, Formats: []string{"pem"}, UID: -1, GID: -1, Mode: 0o640})
	if err != nil {
		panic(err)
	}
	if err := folder.Write(material(authorities())); err != nil {
		panic(err)
	}
	leaf, ca, err := folder.Read()
	fmt.Println(leaf.DNSNames, ca[0].Subject.CommonName, err)
	// Output: [postgres] root <nil>
}
