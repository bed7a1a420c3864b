package tlsconfig_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/realpg"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

var localSpec = testpki.Spec{DNS: []string{"localhost"}}

func look(t *testing.T, ca *testpki.CA, e tlsconfig.Endpoint) *tlsconfig.Report {
	t.Helper()
	e.Identity = []string{"localhost"}
	r, err := tlsconfig.Probe(t.Context(), e, tlsconfig.ProbeConfig{Client: tlsconfig.Static(material(t, ca.Issue(testpki.Spec{CN: "app"}), ca))})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Real PostgreSQL. Each database has rules of its own, which need neither it
// nor its users to exist.
func TestProbePostgres(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{
		Settings: map[string]string{"ssl_min_protocol_version": "'TLSv1.3'"},
		HBA: []string{
			"hostssl   strict    all all scram-sha-256 clientcert=verify-ca",
			"hostssl   full      all all scram-sha-256 clientcert=verify-full",
			"hostssl   named     all all cert",
			"hostssl   rejecting all all scram-sha-256 clientcert=verify-ca",
			"hostnossl rejecting all all reject",
			"hostssl   clear     all all scram-sha-256 clientcert=verify-ca",
			"hostnossl clear     all all scram-sha-256",
			"hostssl   trusting  all all scram-sha-256 clientcert=verify-ca",
			"hostnossl trusting  all all trust",
			"hostssl   lax       all all scram-sha-256",
			"hostssl   open      all all trust",
			"hostssl   closed    all all reject",
			"host      both      all all scram-sha-256",
			"hostssl   mixed     tamshai all scram-sha-256 clientcert=verify-ca",
			"host      mixed     app all scram-sha-256",
		},
	})
	for database, want := range map[string]string{
		"strict": "", "full": "", "named": "", "rejecting": "",
		"clear": "plaintext", "trusting": "plaintext",
		"lax": "no_client_certificate", "open": "no_client_certificate",
		"both":   "plaintext no_client_certificate",
		"closed": "client_refused", "without-a-rule": "client_refused",
	} {
		t.Run(database, func(t *testing.T) {
			r := look(t, pg.CA(), tlsconfig.Endpoint{Addr: pg.Addr(), Protocol: tlsconfig.ProtocolPostgres, Logins: []tlsconfig.PostgresLogin{{Database: database, User: "app"}}})
			if codes(r) != want {
				t.Errorf("got %q, want %q: %+v", codes(r), want, r.Findings)
			}
			if r.Version != tls.VersionTLS13 || r.KeyExchange != tls.CurveP256 || r.PostQuantum() {
				t.Errorf("%s, %s", tls.VersionName(r.Version), r.KeyExchange)
			}
		})
	}
	t.Run("the second login", func(t *testing.T) {
		r := look(t, pg.CA(), tlsconfig.Endpoint{Addr: pg.Addr(), Protocol: tlsconfig.ProtocolPostgres,
			Logins: []tlsconfig.PostgresLogin{{Database: "mixed", User: "tamshai"}, {Database: "mixed", User: "app"}}})
		if codes(r) != "plaintext no_client_certificate" || !strings.Contains(r.Findings[0].Message, "as app on mixed") {
			t.Errorf("%+v", r.Findings)
		}
	})
	t.Run("a foreign name", func(t *testing.T) {
		r, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: pg.Addr(), Protocol: tlsconfig.ProtocolPostgres, Logins: []tlsconfig.PostgresLogin{{Database: "strict", User: "app"}}, Identity: []string{"postgres"}},
			tlsconfig.ProbeConfig{Bundle: certs([]*testpki.CA{testpki.NewCA("other")})})
		if err != nil || codes(r) != "untrusted identity unseen" {
			t.Errorf("%v, %+v", err, r)
		}
	})
}

// A server as it is installed: no rule asks for a certificate, and TLS 1.2 is
// spoken. Without ssl_ca_file it cannot even ask.
func TestProbePostgresDefaults(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{Settings: map[string]string{"ssl_ca_file": "''"}, HBA: []string{"host all all all scram-sha-256"}})
	if r := look(t, pg.CA(), tlsconfig.Endpoint{Addr: pg.Addr(), Protocol: tlsconfig.ProtocolPostgres}); codes(r) != "plaintext no_client_certificate old_tls" {
		t.Errorf("%+v", r.Findings)
	}
	pg = realpg.Start(t, realpg.Config{NoTLS: true, HBA: []string{"host all all all scram-sha-256"}})
	r := look(t, pg.CA(), tlsconfig.Endpoint{Addr: pg.Addr(), Protocol: tlsconfig.ProtocolPostgres})
	if codes(r) != "plaintext no_tls" || !strings.Contains(r.Findings[1].Message, "N") || r.Version != 0 || !r.Expires.IsZero() {
		t.Errorf("%+v", r)
	}
}

// What answers an SSLRequest with S and goes on in the clear, or not at all, has
// no TLS.
func TestProbePostgresThatIsOdd(t *testing.T) {
	for _, tt := range []struct{ name, ssl, want string }{
		{"S, and then in the clear", "SR\x00\x00\x00\x08\x00\x00\x00\x00", "plaintext no_tls"},
		{"S, and then nothing", "S", "no_tls"},
		{"an error", "E\x00\x00\x00\x22C28000\x00Mno pg_hba.conf entry\x00\x00", "no_tls"},
		{"N", "N", "no_tls"},
	} {
		addr := accept(t, func(conn net.Conn) {
			head := make([]byte, 8)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			if string(head) == "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
				io.WriteString(conn, tt.ssl)
			} else {
				io.WriteString(conn, "E\x00\x00\x00\x22C28000\x00Mno pg_hba.conf entry\x00\x00")
			}
			io.CopyN(io.Discard, conn, 1)
		})
		if r := look(t, testpki.NewCA("root"), tlsconfig.Endpoint{Addr: addr, Protocol: tlsconfig.ProtocolPostgres}); codes(r) != tt.want || r.Accepted {
			t.Errorf("%s: got %q, want %q: %+v", tt.name, codes(r), tt.want, r.Findings)
		}
	}
}

// TLS that is promised and not insisted on is none: whoever sits in between
// leaves it out.
func TestProbePostgresThatDoesNotInsist(t *testing.T) {
	ca := testpki.NewCA("root")
	config := strict(ca, ca.Issue(testpki.Spec{DNS: []string{"localhost"}}))
	for _, tt := range []struct {
		name, clear string // the answer to a startup in the clear after the promise
		want        string
	}{
		{"asks for a password", "R\x00\x00\x00\x08\x00\x00\x00\x03", "plaintext"},
		{"an alert of TLS", "\x15\x03\x01\x00\x02\x02\x46", ""},
		{"hangs up", "", ""},
	} {
		addr := accept(t, func(conn net.Conn) {
			head := make([]byte, 8)
			if _, err := io.ReadFull(conn, head); err != nil || string(head) != "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
				return
			}
			io.WriteString(conn, "S")
			r := bufio.NewReader(conn)
			if first, err := r.Peek(1); err == nil && first[0] != 22 {
				io.WriteString(conn, tt.clear)
				io.CopyN(io.Discard, r, 9)
				return
			}
			secure := tls.Server(peeked{conn, r}, config)
			if secure.Handshake() == nil {
				io.WriteString(secure, "R\x00\x00\x00\x08\x00\x00\x00\x03")
				io.CopyN(io.Discard, secure, 9)
			}
		})
		if r := look(t, ca, tlsconfig.Endpoint{Addr: addr, Protocol: tlsconfig.ProtocolPostgres}); codes(r) != tt.want {
			t.Errorf("%s: got %q, want %q: %+v", tt.name, codes(r), tt.want, r.Findings)
		}
	}
}

// A server that has no room for another client has not looked at its rules: it
// is neither in the clear nor sound.
func TestProbePostgresThatIsFull(t *testing.T) {
	pg := realpg.Start(t, realpg.Config{
		Settings: map[string]string{"ssl_min_protocol_version": "'TLSv1.3'", "max_connections": "1", "superuser_reserved_connections": "0", "max_wal_senders": "0"},
		HBA:      []string{"hostssl all all all scram-sha-256 clientcert=verify-ca", "hostnossl other all all scram-sha-256"},
	})
	probe := func() error {
		_, err := tlsconfig.Probe(t.Context(), tlsconfig.Endpoint{Addr: pg.Addr(), Protocol: tlsconfig.ProtocolPostgres}, tlsconfig.ProbeConfig{Bundle: certs([]*testpki.CA{pg.CA()})})
		return err
	}
	// A client keeps its place while it is asked for its password.
	var conn net.Conn
	defer func() { conn.Close() }()
	wait(t, "there is room", func() bool {
		var err error
		if conn, err = net.Dial("tcp", pg.Addr()); err != nil {
			return false
		}
		io.WriteString(conn, "\x00\x00\x00\x1f\x00\x03\x00\x00user\x00a\x00database\x00other\x00\x00")
		first := make([]byte, 1)
		if _, err := io.ReadFull(conn, first); err == nil && first[0] == 'R' {
			return true
		}
		conn.Close()
		return false
	})
	if err := probe(); !errors.Is(err, tlsconfig.ErrUnreachable) || !strings.Contains(err.Error(), "53300") {
		t.Errorf("%v", err)
	}
}

// redis runs a real redis-server with these settings, and TLS on its port
// unless it is "clear".
func redis(t *testing.T, ca *testpki.CA, settings ...string) string {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v: run scripts/setup, or apt-get install redis-server", err)
	}
	dir, pair := t.TempDir(), ca.Issue(localSpec)
	for name, text := range map[string][]byte{"cert.pem": pair.CertPEM(), "key.pem": pair.KeyPEM(), "ca.pem": testpki.PEM(ca.Cert)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	args := []string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir}
	if settings[0] == "clear" {
		args, settings = append(args, "--port", port), settings[1:]
	} else {
		args = append(args, "--port", "0", "--tls-port", port, "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, append(args, settings...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out lockedBuffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	wait(t, "redis-server listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr
}

func TestProbeRedis(t *testing.T) {
	ca := testpki.NewCA("root")
	tests := []struct {
		name, want string
		settings   []string
	}{
		{"sound", "", []string{"--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.3"}},
		{"sound, with a password", "", []string{"--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.3", "--requirepass", "x"}},
		{"TLS 1.2 too", "old_tls", []string{"--tls-auth-clients", "yes"}},
		{"clients if they like", "no_client_certificate", []string{"--tls-auth-clients", "optional", "--tls-protocols", "TLSv1.3"}},
		{"clients not asked", "no_client_certificate", []string{"--tls-auth-clients", "no", "--tls-protocols", "TLSv1.3", "--requirepass", "x"}},
		{"in the clear", "plaintext no_tls", []string{"clear"}},
		{"in the clear, with a password", "plaintext no_tls", []string{"clear", "--requirepass", "x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := look(t, ca, tlsconfig.Endpoint{Addr: redis(t, ca, tt.settings...), Protocol: tlsconfig.ProtocolRedis})
			if codes(r) != tt.want {
				t.Errorf("got %q, want %q: %+v", codes(r), tt.want, r.Findings)
			}
			if strings.HasSuffix(tt.name, "clear, with a password") && !strings.Contains(r.Findings[0].Message, "-NOAUTH") {
				t.Errorf("%q does not say what it answered", r.Findings[0].Message)
			}
		})
	}
}

// mongo answers an OP_MSG that holds a hello, as a mongod does, and hangs up
// on everything else.
func mongo(conn io.ReadWriter) {
	var head [16]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	le := binary.LittleEndian
	size := le.Uint32(head[:])
	if le.Uint32(head[12:]) != 2013 || size < 26 || size > 1000 {
		return
	}
	body := make([]byte, size-16)
	if _, err := io.ReadFull(conn, body); err != nil {
		return
	}
	const hello = "\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00"
	if le.Uint32(body) != 0 || body[4] != 0 || int(le.Uint32(body[5:])) != len(body)-5 || string(body[9:]) != hello {
		return
	}
	reply := []byte("\x01ok\x00\x00\x00\x00\x00\x00\x00\xf0\x3f\x00") // {ok: 1.0}
	reply = append(le.AppendUint32(nil, uint32(len(reply)+4)), reply...)
	var msg []byte
	for _, n := range []uint32{uint32(16 + 5 + len(reply)), 7, le.Uint32(head[4:]), 2013} {
		msg = le.AppendUint32(msg, n)
	}
	conn.Write(append(append(msg, 0, 0, 0, 0, 0), reply...))
}

func TestProbeMongo(t *testing.T) {
	ca := testpki.NewCA("root")
	config := strict(ca, ca.Issue(localSpec))
	lax := config.Clone()
	lax.ClientAuth = tls.VerifyClientCertIfGiven
	for want, serve := range map[string]func(net.Conn){
		"":                      func(conn net.Conn) { mongo(tls.Server(conn, config)) },
		"no_client_certificate": func(conn net.Conn) { mongo(tls.Server(conn, lax)) },
		"plaintext no_tls":      func(conn net.Conn) { mongo(conn) },
		"plaintext": func(conn net.Conn) { // preferTLS
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err != nil {
				return
			}
			again := peeked{conn, io.MultiReader(strings.NewReader(string(first)), conn)}
			if first[0] == 22 {
				mongo(tls.Server(again, config))
			} else {
				mongo(again)
			}
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r := look(t, ca, tlsconfig.Endpoint{Addr: accept(t, serve), Protocol: tlsconfig.ProtocolMongoDB})
			if codes(r) != want {
				t.Errorf("got %q, want %q: %+v", codes(r), want, r.Findings)
			}
			if r.Accepted != (r.Version != 0) {
				t.Error("the good client was not served")
			}
		})
	}
}

// nodeServer listens on a free port, and answers what it is asked.
const nodeServer = `
const { cert, key, ca, options } = JSON.parse(process.env.PROBE)
const server = require('https').createServer({ cert, key, ca, ...options }, (_, answer) => answer.end('hello'))
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
`

// Node refuses by hanging up, without an alert.
func TestProbeNode(t *testing.T) {
	bin, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v: run scripts/setup, or apt-get install nodejs", err)
	}
	ca := testpki.NewCA("root")
	pair := ca.Issue(localSpec)
	for _, tt := range []struct {
		name, want string
		options    map[string]any
	}{
		{"sound", "", map[string]any{"requestCert": true, "minVersion": "TLSv1.3"}},
		{"as it comes", "no_client_certificate old_tls", nil},
		{"TLS 1.2 too", "old_tls", map[string]any{"requestCert": true}},
		{"asking, and taking any", "no_client_certificate", map[string]any{"requestCert": true, "minVersion": "TLSv1.3", "rejectUnauthorized": false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(map[string]any{"cert": string(pair.CertPEM()), "key": string(pair.KeyPEM()), "ca": string(testpki.PEM(ca.Cert)), "options": tt.options})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(bin, "-e", nodeServer)
			cmd.Env = append(os.Environ(), "PROBE="+string(text))
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			port, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			r := look(t, ca, tlsconfig.Endpoint{Addr: "127.0.0.1:" + strings.TrimSpace(port), Protocol: tlsconfig.ProtocolHTTPS})
			if codes(r) != tt.want {
				t.Errorf("got %q, want %q: %+v", codes(r), tt.want, r.Findings)
			}
		})
	}
}
