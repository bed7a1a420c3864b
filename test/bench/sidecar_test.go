package bench_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/freeport"
	"github.com/tamshai/phoenix/internal/realvault"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

const (
	hopRounds  = 6 // of each way, in turn
	hopRound   = 500 * time.Millisecond
	hopClients = 32
	hopIdle    = 1000
)

// hopEstate are two services, and the edge between them.
const hopEstate = `
owner: bench
environment: bench
vault: {kv: [bench]}
pki: {}
services:
  gateway: {role_id: gateway-role-id-of-the-bench, calls: [hr]}
  hr: {role_id: hr-role-id-of-the-bench, port: 3101}
`

// A hopWay leads to the same program: directly, or through a pair of proxies with
// mutual TLS between them.
type hopWay struct {
	name           string
	url            string // where a plain client comes
	caller, callee int    // processes; 0: none
	secure         string // where the callee takes mutual TLS
	config         *tls.Config

	latencies []time.Duration
	perSecond []float64
	processor []float64 // time of both processes for a request of many clients, in microseconds
	plainIdle float64   // MiB of the caller's proxy for 1,000 idle plain connections
	tlsIdle   float64   // MiB of the callee's for as many with mutual TLS
}

// What one hop of the agents' mutual TLS costs, beside the same pair of HAProxy and
// of bare net/http, in turn in one run: a POST of 100 bytes of one client and of 32, and the memory
// of idle connections.
func BenchmarkHop(b *testing.B) {
	program := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	served := make(chan error, 1)
	go func() { served <- program.Serve(l) }()
	b.Cleanup(func() {
		_ = program.Close()
		<-served
	})
	dir := b.TempDir()
	ways := []*hopWay{{name: "direct, plain", url: "http://" + l.Addr().String()}, agentPair(b, dir, l.Addr().String())}
	ways = append(ways, otherPairs(b, dir, l.Addr().String())...)
	for b.Loop() {
		for range hopRounds {
			for _, w := range ways {
				w.measure(b)
			}
		}
		for _, w := range ways[1:] {
			w.plainIdle = w.idle(b, w.caller, w.url, nil)
			w.tlsIdle = w.idle(b, w.callee, w.secure, w.config)
		}
	}
	out := b.Output()
	for _, w := range ways {
		slices.Sort(w.latencies)
		slices.Sort(w.perSecond)
		slices.Sort(w.processor)
		fmt.Fprintf(out, "%-13s POST: p50 %6.1f µs, p99 %6.1f µs; %d clients %7.0f/s, %3.0f µs of processor each; 1,000 idle: %5.1f MiB plain at the caller's, %5.1f MiB mutual TLS at the callee's\n",
			w.name, us(quantile(w.latencies, .5)), us(quantile(w.latencies, .99)), hopClients, w.perSecond[len(w.perSecond)/2], w.processor[len(w.processor)/2], w.plainIdle, w.tlsIdle)
	}
	ours, theirs, floor := ways[1], ways[2], ways[3]
	bare := quantile(ways[0].latencies, .5)
	latency := float64(quantile(ours.latencies, .5)) / float64(quantile(theirs.latencies, .5))
	rate := ours.perSecond[len(ours.perSecond)/2] / theirs.perSecond[len(theirs.perSecond)/2]
	fmt.Fprintf(out, "added by the pair: ours %.1f µs, HAProxy's %.1f µs, net/http's %.1f µs; ours to net/http: latency %.2f, throughput %.2f\n",
		us(quantile(ours.latencies, .5)-bare), us(quantile(theirs.latencies, .5)-bare), us(quantile(floor.latencies, .5)-bare),
		float64(quantile(ours.latencies, .5))/float64(quantile(floor.latencies, .5)), ours.perSecond[len(ours.perSecond)/2]/floor.perSecond[len(floor.perSecond)/2])
	fmt.Fprintf(out, "ours to HAProxy: latency %.2f, goal at most 1: %s; throughput %.2f, goal at least 1: %s\n", latency, verdict(latency <= 1), rate, verdict(rate >= 1))
	b.ReportMetric(float64(quantile(ours.latencies, .5)), "ns/op")
	b.ReportMetric(latency, "latency-ratio")
	b.ReportMetric(rate, "throughput-ratio")
}

// agentPair runs two released agents whose children only wait.
func agentPair(b *testing.B, dir, program string) *hopWay {
	ctx := b.Context()
	v := realvault.StartT(b, realvault.Config{TLS: true})
	estate, err := provision.Load("estate.yaml", []byte(hopEstate))
	check(b, err)
	client, err := vault.New(vault.Config{Addr: v.Addr(), CACertPEM: v.CACertPEM()})
	check(b, err)
	root, err := client.WithToken(secrets.NewString(v.RootToken()))
	check(b, err)
	b.Cleanup(root.Close)
	plan, err := provision.NewPlan(ctx, root, estate, provision.PlanConfig{})
	check(b, err)
	_, err = plan.Apply(ctx, provision.ApplyConfig{})
	check(b, err)
	ca := filepath.Join(dir, "vault-ca.pem")
	check(b, os.WriteFile(ca, v.CACertPEM(), 0o600))
	issue := func(service, as string) string {
		issued, err := provision.Issue(ctx, root, estate, []string{service}, provision.IssueConfig{})
		check(b, err)
		data, err := provision.EnvFile(issued)
		check(b, err)
		file := filepath.Join(dir, as+".env")
		check(b, os.WriteFile(file, data, 0o600))
		return file
	}
	bin := build(b, dir, "./cmd/phoenix-agent", "GOEXPERIMENT=runtimesecret")
	in, out := freeAddr(b), freeAddr(b)
	w := &hopWay{name: "phoenix-agent", url: "http://" + out, secure: "https://" + in}
	for _, side := range []struct {
		service, config string
		pid             *int
	}{
		{"hr", fmt.Sprintf("serve: [{at: '%s', to: '%s', peers: {gateway: {}}}]\n", in, program), &w.callee},
		{"gateway", fmt.Sprintf("call: [{peer: hr, to: '%s', at: '%s'}]\n", in, out), &w.caller},
	} {
		config := filepath.Join(dir, side.service+".yaml")
		check(b, os.WriteFile(config, []byte("service: "+side.service+"\ncommand: [cat]\nidentity: {role: pki/sign/"+side.service+", roots: pki-root}\n"+side.config), 0o600))
		env := []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + v.Addr(), "VAULT_CACERT=" + ca, "VAULT_SECRET_ID_FILE=" + issue(side.service, side.service)}
		*side.pid = background(b, env, bin, "exec", "-log-level", "error", "-config", config)
	}
	session, err := bootstrap.Start(ctx, bootstrap.Config{
		Service: "gateway", Addr: v.Addr(), CACertPEM: v.CACertPEM(), SecretIDFile: issue("gateway", "here"),
		Identity: &bootstrap.CertRequest{Role: "pki/sign/gateway", CommonName: "gateway"}, Roots: "pki-root", LookupEnv: func(string) (string, bool) { return "", false },
	})
	check(b, err)
	b.Cleanup(func() { _ = session.Close(context.Background()) })
	w.config = tlsconfig.Client(session.Identity(), "hr", tlsconfig.AllowDNS("hr"))
	w.await(b)
	return w
}

// otherPairs are HAProxy and bare net/http. Both keep connections and verify both
// names; HAProxy tells the program who calls.
func otherPairs(b *testing.B, dir, program string) []*hopWay {
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		b.Fatalf("%v: apt-get install haproxy", err)
	}
	ca := testpki.NewCA("bench")
	caller := ca.Issue(testpki.Spec{CN: "gateway", DNS: []string{"gateway"}})
	callee := ca.Issue(testpki.Spec{CN: "hr", DNS: []string{"hr"}})
	in, out := freeAddr(b), freeAddr(b)
	const defaults = `global
  nbthread 2
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 2m
  timeout server 2m
  http-reuse always
`
	path := func(name string) string { return filepath.Join(dir, "haproxy-"+name) }
	for name, text := range map[string]string{
		"ca.pem":     string(testpki.PEM(ca.Cert)),
		"caller.pem": string(caller.CertPEM()) + string(caller.KeyPEM()),
		"callee.pem": string(callee.CertPEM()) + string(callee.KeyPEM()),
		"caller.cfg": defaults + fmt.Sprintf("frontend f\n  bind %s\n  default_backend b\nbackend b\n  server s %s ssl crt %s ca-file %s verify required verifyhost hr sni str(hr)\n",
			out, in, path("caller.pem"), path("ca.pem")),
		"callee.cfg": defaults + fmt.Sprintf("frontend f\n  bind %s ssl crt %s ca-file %s verify required\n  http-request deny unless { ssl_c_s_dn(cn) gateway }\n  http-request set-header Phoenix-Peer %%[ssl_c_s_dn(cn)]\n  default_backend b\nbackend b\n  server s %s\n",
			in, path("callee.pem"), path("ca.pem"), program),
	} {
		check(b, os.WriteFile(path(name), []byte(text), 0o600))
	}
	env := []string{"PATH=" + os.Getenv("PATH")}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "hr", Certificates: []tls.Certificate{{Certificate: rawChain(caller), PrivateKey: caller.Key}}}
	w := &hopWay{name: "HAProxy", url: "http://" + out, secure: "https://" + in, config: config}
	w.callee = background(b, env, bin, "-db", "-f", path("callee.cfg"))
	w.caller = background(b, env, bin, "-db", "-f", path("caller.cfg"))
	w.await(b)

	bin = build(b, dir, "./test/bench/barehop")
	in, out = freeAddr(b), freeAddr(b)
	floor := &hopWay{name: "bare net/http", url: "http://" + out, secure: "https://" + in, config: config}
	floor.callee = background(b, env, bin, "serve", in, path("callee.pem"), path("ca.pem"), "http://"+program)
	floor.caller = background(b, env, bin, "call", out, path("caller.pem"), path("ca.pem"), "https://"+in)
	floor.await(b)
	return []*hopWay{w, floor}
}

func rawChain(p testpki.Pair) (der [][]byte) {
	for _, c := range p.Chain {
		der = append(der, c.Raw)
	}
	return der
}

func freeAddr(b *testing.B) string {
	addr, err := freeport.Addr(b.Context())
	check(b, err)
	return addr
}

// background runs a program until the benchmark ends.
func background(b *testing.B, env []string, args ...string) (pid int) {
	cmd := exec.Command(args[0], args[1:]...)
	hold, release, err := os.Pipe()
	check(b, err)
	cmd.Env, cmd.Stdin, cmd.Stderr = env, hold, os.Stderr
	check(b, cmd.Start())
	_ = hold.Close()
	b.Cleanup(func() {
		_ = release.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// await waits until the pair lets a request through.
func (w *hopWay) await(b *testing.B) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := post(b.Context(), &http.Client{Transport: transport}, w.url)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", w.name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var hopBody = strings.Repeat("x", 100)

func post(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(hopBody))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != hopBody) {
		err = fmt.Errorf("%s: %.100s", resp.Status, body)
	}
	return err
}

// measure is one round: of one client, and of many.
func (w *hopWay) measure(b *testing.B) {
	transport := &http.Transport{MaxIdleConnsPerHost: hopClients}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for range 50 {
		check(b, post(b.Context(), client, w.url))
	}
	for end := time.Now().Add(hopRound); time.Now().Before(end); {
		begin := time.Now()
		check(b, post(b.Context(), client, w.url))
		w.latencies = append(w.latencies, time.Since(begin))
	}
	counts, errs := make([]int, hopClients), make([]error, hopClients)
	run := func(length time.Duration) time.Duration {
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range hopClients {
			counts[i] = 0
			wg.Go(func() {
				for time.Since(begin) < length && errs[i] == nil {
					errs[i] = post(b.Context(), client, w.url)
					counts[i]++
				}
			})
		}
		wg.Wait()
		return time.Since(begin)
	}
	run(hopRound / 5) // for the connections
	before := processorTime(b, w.caller) + processorTime(b, w.callee)
	took := run(hopRound)
	spent := processorTime(b, w.caller) + processorTime(b, w.callee) - before
	check(b, errors.Join(errs...))
	total := 0
	for _, n := range counts {
		total += n
	}
	w.perSecond = append(w.perSecond, float64(total)/took.Seconds())
	w.processor = append(w.processor, us(spent)/float64(total))
}

// processorTime is what a process has had of it, user and system, to 10 ms
// (proc_pid_stat(5)).
func processorTime(b *testing.B, pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(b, err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the third, state
	var ticks time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		check(b, err)
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// idle is what connections add to a process that have made a request, one after
// the other, and wait.
func (w *hopWay) idle(b *testing.B, pid int, url string, config *tls.Config) float64 {
	before := (&way{name: w.name, pid: pid}).memory(b)
	for range hopIdle {
		transport := &http.Transport{MaxIdleConns: 1, TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		check(b, post(b.Context(), &http.Client{Transport: transport}, url))
	}
	return ((&way{name: w.name, pid: pid}).memory(b) - before) * 1000 / hopIdle
}
