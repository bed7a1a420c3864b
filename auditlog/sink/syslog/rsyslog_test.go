//go:build linux

package syslog_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog/sink/internal/sinktest"
	"github.com/tamshai/phoenix/auditlog/sink/syslog"
	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/testpki"
)

// rsyslog is a real one, with TLS and client certificates.
type rsyslog struct {
	addr, file, log string
	cmd             *exec.Cmd
}

// startRsyslog runs rsyslogd with a driver for TLS, gtls or ossl, on a port; 0
// is any. What it gets is in file.
func startRsyslog(t *testing.T, driver string, ca *testpki.CA, dir, port string) *rsyslog {
	t.Helper()
	path, err := exec.LookPath("rsyslogd")
	if err != nil {
		path = "/usr/sbin/rsyslogd" // not on the PATH of ordinary users
	}
	pair := ca.Issue(testpki.Spec{DNS: []string{"localhost"}, IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
	for name, data := range map[string][]byte{"ca.pem": testpki.PEM(ca.Cert), "cert.pem": pair.CertPEM(), "key.pem": pair.KeyPEM()} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	r := &rsyslog{file: filepath.Join(dir, "got"), log: filepath.Join(dir, "log")}
	conf := fmt.Sprintf(`global(workDirectory="%[1]s" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"
  defaultNetstreamDriverCAFile="%[1]s/ca.pem" defaultNetstreamDriverCertFile="%[1]s/cert.pem" defaultNetstreamDriverKeyFile="%[1]s/key.pem")
module(load="imtcp" streamDriver.name="%[2]s" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" address="127.0.0.1" port="%[3]s" listenPortFileName="%[1]s/port")
template(name="raw" type="string" string="%%app-name%% %%msgid%% %%syslogseverity%% %%structured-data%%%%msg%%\n")
if $inputname == "imtcp" then {
  action(type="omfile" file="%[1]s/got" template="raw")
  stop
}
action(type="omfile" file="%[1]s/log")
`, dir, driver, port)
	must(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600))
	_ = os.Remove(filepath.Join(dir, "port"))
	r.cmd = exec.Command(path, "-n", "-iNONE", "-f", filepath.Join(dir, "conf"))
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("%v: apt-get install rsyslog rsyslog-gnutls rsyslog-openssl", err)
	}
	t.Cleanup(r.stop)
	t.Cleanup(func() {
		if data, _ := os.ReadFile(r.log); t.Failed() {
			t.Logf("rsyslog: %s", data)
		}
	})
	r.addr = "localhost:" + port
	if port == "0" {
		eventually(t, "rsyslog listens", func() bool {
			data, err := os.ReadFile(filepath.Join(dir, "port"))
			r.addr = "localhost:" + strings.TrimSpace(string(data))
			return err == nil && len(data) > 0
		})
	}
	return r
}

func (r *rsyslog) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait()
}

func (r *rsyslog) lines(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	eventually(t, fmt.Sprintf("rsyslog has written %d lines", n), func() bool {
		data, _ := os.ReadFile(r.file)
		out = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		return len(out) >= n && bytes.HasSuffix(data, []byte("\n"))
	})
	return out
}

func TestRsyslog(t *testing.T) {
	for _, driver := range []string{"gtls", "ossl"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			ca := testpki.NewCA("root")
			roots := x509.NewCertPool()
			roots.AddCert(ca.Cert)
			server := startRsyslog(t, driver, ca, t.TempDir(), "0")
			client := ca.Issue(testpki.Spec{DNS: []string{"mcp-hr"}})
			source := func(p testpki.Pair) func() (*tls.Config, error) {
				return func() (*tls.Config, error) {
					return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate(p)}}, nil
				}
			}
			s := newSink(t, syslog.Config{Addr: server.addr, TLS: source(client), MaxBatch: 30, Token: func() (string, error) { return "t0ken", nil }})
			dir := sinktest.Log(t, 100)
			if status := sinktest.Ship(t, dir, s); !status.Delivered() || status.Sinks[0].Delivered != 100 || status.Sinks[0].Confirmed {
				t.Errorf("%+v", status)
			}
			lines := server.lines(t, 100)
			if len(lines) != 100 {
				t.Errorf("%d lines", len(lines))
			}
			for i, e := range sinktest.Entries(t, dir) {
				event, err := e.Event()
				must(t, err)
				want := fmt.Sprintf(`mcp-hr %s 5 [audit@32473 id="%s" `, event.Action, event.ID)
				if !strings.HasPrefix(lines[i], want) || !strings.Contains(lines[i], `a.line="one two   \]\" żółć"][t0ken@41058]`) || !strings.HasSuffix(lines[i], string(e.JSON)) {
					t.Errorf("line %d is %s\nwant %s… %s", i, lines[i], want, e.JSON)
				}
			}

			// It refuses an expired certificate, and nothing counts as sent.
			expired := ca.Issue(testpki.Spec{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
			err := newSink(t, syslog.Config{Addr: server.addr, TLS: source(expired)}).Deliver(t.Context(), sinktest.Entries(t, dir))
			if err == nil {
				t.Error("it took an expired certificate")
			}
		})
	}
}

// rsyslog is stopped and restarted while a log is delivered: nothing is lost.
// With the driver ossl of 8.2302 something is, in about one run of six and more
// often under load, after handshakes that were cut off. What the next client then
// reads looks like a piece of its output file.
func TestRsyslogRestarts(t *testing.T) {
	ca := testpki.NewCA("root")
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	client := ca.Issue(testpki.Spec{})
	source := func() (*tls.Config, error) {
		return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate(client)}}, nil
	}
	at, driver := t.TempDir(), "gtls"
	addr, err := freeport.Addr(t.Context()) // which nobody takes while it is down
	must(t, err)
	_, port, _ := net.SplitHostPort(addr)
	server := startRsyslog(t, driver, ca, at, port)
	dir := sinktest.Log(t, 600)
	done := make(chan struct{})
	go func() {
		defer close(done)
		sinktest.Ship(t, dir, newSink(t, syslog.Config{Addr: server.addr, TLS: source, MaxBatch: 10}))
	}()
	for n := 50; n <= 350; n += 150 {
		server.lines(t, n)
		server.stop() // rsyslog writes what it has read before it ends
		server = startRsyslog(t, driver, ca, at, port)
	}
	<-done
	seen := map[string]bool{}
	eventually(t, "every event is there", func() bool {
		data, _ := os.ReadFile(server.file)
		for line := range strings.Lines(string(data)) {
			seen[strings.Fields(line)[1]] = true
		}
		return len(seen) == 600
	})
}
