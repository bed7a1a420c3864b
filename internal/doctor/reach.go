package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
)

// dialTimeout bounds one look at the way to Vault.
const dialTimeout = 5 * time.Second

// hostPort takes an address apart; the port is the scheme's if it has none.
func hostPort(addr string) (host, port string, secure bool) {
	u, err := url.Parse(addr)
	if err != nil {
		return "", "", false
	}
	secure = u.Scheme == "https"
	if port = u.Port(); port == "" {
		port = map[bool]string{true: "443", false: "80"}[secure]
	}
	return u.Hostname(), port, secure
}

func (x *exam) address(context.Context) []Finding {
	if x.estate == nil && x.boot.Service == "" {
		return badConfig("VAULT_ADDR")
	}
	addr := x.target.Addr
	client, err := vault.New(x.target)
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "vault: ")
		what, remedy, _ := strings.Cut(text, "; ")
		if remedy == "" {
			remedy = "mend what the error names"
		}
		return []Finding{problem(orElse(addr, "VAULT_ADDR"), what, remedy)}
	}
	x.client, x.base, x.have = client, client, address
	if _, _, secure := hostPort(addr); !secure {
		if x.target.AllowPlaintext {
			return []Finding{warning(addr, "tokens and secrets cross the network in the clear", "give Vault a certificate and use https")}
		}
		return []Finding{note(addr, "plain HTTP, on the loopback interface alone")}
	}
	return []Finding{ok(addr, "https")}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func (x *exam) caFile(context.Context) []Finding {
	text, subject := x.target.CACertPEM, "VAULT_CACERT_BYTES"
	var list []Finding
	if file := x.target.CACertFile; file != "" {
		subject = file
		data, err := x.host.readFile(file)
		if err != nil {
			return []Finding{problem(file, "the CA file cannot be read: "+fileError(err), "name the PEM file of Vault's CA in VAULT_CACERT, readable for this user")}
		}
		text = data
		if info, err := x.host.stat(file); err == nil && info.Mode().Perm()&0o022 != 0 {
			list = append(list, warning(file, fmt.Sprintf("others may write to it (%v), and so choose whom to trust", info.Mode().Perm()), "chmod go-w "+file))
		}
	}
	if len(text) == 0 {
		return []Finding{note("CA", "the system's CAs are trusted; VAULT_CACERT would narrow that down to Vault's own")}
	}
	certs := parseCertificates(text)
	if len(certs) == 0 {
		return append(list, problem(subject, "there is no certificate in PEM form in it", "give the file that Vault's operator hands out as its CA"))
	}
	for _, c := range certs {
		list = append(list, x.expiry(subject, "the CA "+c.Subject.CommonName, c, 30*24*time.Hour, "make a new CA certificate, and give it to the services before the old one ends"))
	}
	return list
}

func parseCertificates(text []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			certs = append(certs, c)
		}
	}
	return certs
}

// expiry finds a certificate that has ended, or will within soon; of a
// certificate that lives shorter than five times soon, in the last fifth.
func (x *exam) expiry(subject, name string, c *x509.Certificate, soon time.Duration, remedy string) Finding {
	now := x.host.Now()
	left := c.NotAfter.Sub(now)
	until := c.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case now.Before(c.NotBefore):
		return problem(subject, fmt.Sprintf("%s is not valid before %s, by this clock", name, c.NotBefore.UTC().Format(time.RFC3339)), "compare this machine's clock, or wait")
	case left <= 0:
		return problem(subject, fmt.Sprintf("%s ended at %s", name, until), remedy)
	case left < min(soon, c.NotAfter.Sub(c.NotBefore)/5):
		return warning(subject, fmt.Sprintf("%s ends in %s, at %s", name, span(left), until), remedy)
	}
	return ok(subject, "%s is good until %s", name, until)
}

// span writes a length of time in its largest unit: "3 days".
func span(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"days", 24 * time.Hour}, {"hours", time.Hour}, {"minutes", time.Minute}} {
		if d >= 2*unit.size {
			return fmt.Sprintf("%d %s", d/unit.size, unit.name)
		}
	}
	return d.Truncate(time.Second).String()
}

func (x *exam) dns(ctx context.Context) []Finding {
	host, _, _ := hostPort(x.target.Addr)
	if net.ParseIP(host) != nil {
		return []Finding{ok(host, "is an address")}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := x.host.LookupHost(ctx, host)
	var missing *net.DNSError
	switch {
	case errors.As(err, &missing) && missing.IsNotFound:
		return []Finding{problem(host, "no such name from here", "check VAULT_ADDR; in a container, a name exists only on the networks that it shares with Vault: put both on one (vault.networks in the estate)")}
	case err != nil:
		return []Finding{problem(host, "cannot be resolved: "+err.Error(), "check this machine's resolver (/etc/resolv.conf)")}
	}
	return []Finding{ok(host, "is %s", strings.Join(addrs, ", "))}
}

func (x *exam) tcp(ctx context.Context) []Finding {
	host, port, _ := hostPort(x.target.Addr)
	addr := net.JoinHostPort(host, port)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := x.host.Dial(ctx, "tcp", addr)
	if err == nil {
		_ = conn.Close()
		x.have = open
		return []Finding{ok(addr, "accepts connections")}
	}
	is := func(errs ...error) bool {
		for _, e := range errs {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	var timeout net.Error
	switch {
	case is(syscall.ECONNREFUSED):
		return []Finding{problem(addr, "nothing listens there: connection refused", "start Vault, or correct the port in VAULT_ADDR; a Vault that listens on 127.0.0.1 alone is not reachable from another container")}
	case is(syscall.ENETUNREACH, syscall.EHOSTUNREACH):
		return []Finding{problem(addr, "there is no route to it from here", "put this service on a network that Vault is on (vault.networks in the estate), or give Vault one that this service is on")}
	case is(context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return []Finding{problem(addr, fmt.Sprintf("no answer within %s: something drops the packets", dialTimeout), "allow this connection in the firewall, or put this service on a network that Vault is on")}
	}
	return []Finding{problem(addr, "cannot be reached: "+err.Error(), "check VAULT_ADDR and the network")}
}

// certificate makes a handshake of its own and sends nothing over it.
func (x *exam) certificate(ctx context.Context) []Finding {
	host, port, secure := hostPort(x.target.Addr)
	if !secure {
		return []Finding{note(x.target.Addr, "no TLS")}
	}
	name := orElse(x.target.ServerName, host)
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, Time: x.host.Now}
	text := x.target.CACertPEM
	if file := x.target.CACertFile; file != "" {
		text, _ = x.host.readFile(file) // vault.ca tells why not
	}
	if len(text) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(text)
	}
	if x.target.ClientCertFile != "" {
		pair, err := tls.LoadX509KeyPair(x.target.ClientCertFile, x.target.ClientKeyFile)
		if err != nil {
			return []Finding{problem(x.target.ClientCertFile, "the client certificate cannot be used: "+err.Error(), "give the certificate and its key in PEM form")}
		}
		config.Certificates = []tls.Certificate{pair}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := x.host.Dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return []Finding{problem(name, "cannot be reached any more: "+err.Error(), "try again")}
	}
	defer raw.Close()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return []Finding{x.handshakeFailed(name, err)}
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	return []Finding{x.expiry(name, "Vault's certificate", leaf, 14*24*time.Hour, "renew it and reload Vault (SIGHUP)")}
}

// handshakeFailed says what is wrong with a certificate that was refused.
func (x *exam) handshakeFailed(name string, err error) Finding {
	var refused *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) {
		return problem(name, "what listens there does not speak TLS", "give Vault's listener a certificate (tls_cert_file), or correct the port")
	}
	if !errors.As(err, &refused) || len(refused.UnverifiedCertificates) == 0 {
		return problem(name, "the TLS handshake fails: "+err.Error(), "compare what TLS Vault's listener asks for: version, client certificate")
	}
	leaf := refused.UnverifiedCertificates[0]
	var otherName x509.HostnameError
	var otherCA x509.UnknownAuthorityError
	switch {
	case errors.As(err, &otherName):
		names := append([]string(nil), leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		return problem(name, "Vault's certificate is for "+orElse(strings.Join(names, ", "), "no name")+", not for "+name,
			"use one of its names in VAULT_ADDR or VAULT_TLS_SERVER_NAME, or issue a certificate with this name")
	case errors.As(err, &otherCA):
		return problem(name, "Vault's certificate was issued by "+orElse(leaf.Issuer.CommonName, "an unnamed CA")+", which is not trusted here",
			"name that CA's file in VAULT_CACERT; a Vault that was rebuilt may have a new CA")
	}
	if f := x.expiry(name, "Vault's certificate", leaf, 14*24*time.Hour, "renew it and reload Vault (SIGHUP)"); f.Status == Problem {
		return f
	}
	return problem(name, "Vault's certificate is refused: "+refused.Err.Error(), "issue a certificate for servers, by the CA in VAULT_CACERT")
}

func (x *exam) health(ctx context.Context) []Finding {
	h, err := x.client.Health(ctx)
	addr := x.target.Addr
	switch {
	case err != nil:
		return []Finding{problem(addr, "does not answer as Vault does: "+err.Error(), "check VAULT_ADDR, and what vault.tls found")}
	case !h.Initialized:
		return []Finding{problem(addr, "Vault is not initialised", "vault operator init, then phoenix provision apply")}
	case h.Sealed:
		return []Finding{problem(addr, "Vault is sealed", "vault operator unseal")}
	}
	x.have = active
	if h.Standby {
		return []Finding{note(addr, "a standby, which forwards requests to the active server")}
	}
	return []Finding{ok(addr, "initialised, unsealed, active")}
}

// traps are what is wrong with Vaults before a version. The numbers are from
// Vault's own change log.
func traps() []struct {
	before [3]int
	status Status
	detail string
} {
	return []struct {
		before [3]int
		status Status
		detail string
	}{
		{[3]int{1, 13, 0}, Problem, "it cannot tune the lockout, so that five failed logins keep a service out for 15 minutes; phoenix provision refuses it"},
		{[3]int{1, 18, 0}, Warning, "whoever may write identities can make themselves root (CVE-2024-9180, fixed in 1.18.0)"},
		{[3]int{1, 20, 0}, Warning, "whoever may write identities can raise their privileges (CVE-2025-5999, fixed in 1.20.0)"},
		{[3]int{1, 20, 1}, Warning, "whoever may write audit devices can run code on Vault's host if it has a plugin directory (CVE-2025-6000, fixed in 1.20.1)"},
		{[3]int{1, 20, 3}, Warning, "it has no limits on nested JSON, which anybody can send (max_json_depth and others came with 1.20.3)"},
	}
}

func (x *exam) version(ctx context.Context) []Finding {
	h, err := x.client.Health(ctx)
	if err != nil {
		return unseen("version", err)
	}
	return versionFindings(h.Version)
}

func versionFindings(text string) []Finding {
	subject := "Vault " + text
	var have [3]int
	core, _, _ := strings.Cut(strings.TrimPrefix(text, "v"), "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	for i := range min(3, len(parts)) {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return []Finding{note("version", "%q cannot be compared", text)}
		}
		have[i] = n
	}
	var list []Finding
	for _, t := range traps() {
		if older(have, t.before) {
			list = append(list, Finding{Status: t.status, Subject: subject, Detail: t.detail,
				Remedy: "upgrade Vault; 1.21 is what Phoenix is tested with. An enterprise release may have the fix in an older line"})
		}
	}
	if list == nil {
		list = []Finding{ok(subject, "has no trap that is known here")}
	}
	return list
}

func older(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// Clocks that differ by more than skewWarning are worth a look, by more than
// skewProblem certificates and wrapped SecretIDs are judged wrongly.
const (
	skewWarning = 5 * time.Second
	skewProblem = time.Minute
)

func (x *exam) clock(ctx context.Context) []Finding {
	before := x.host.Now()
	h, err := x.client.Health(ctx)
	after := x.host.Now()
	if err != nil {
		return unseen("clock", err)
	}
	// Vault tells its time to the second: it is within the second after that.
	skew := time.Duration(0)
	if ahead := before.Sub(h.ServerTime.Add(time.Second)); ahead > 0 {
		skew = ahead
	} else if behind := h.ServerTime.Sub(after); behind > 0 {
		skew = -behind
	}
	detail := fmt.Sprintf("this clock is %s ahead of Vault's", span(skew))
	if skew < 0 {
		detail = fmt.Sprintf("this clock is %s behind Vault's", span(-skew))
	}
	const remedy = "synchronise both with the same time server (chrony, systemd-timesyncd)"
	switch size := max(skew, -skew); {
	case size >= skewProblem:
		return []Finding{problem("clock", detail+"; certificates and tokens will be refused or trusted too long", remedy)}
	case size >= skewWarning:
		return []Finding{warning("clock", detail, remedy)}
	}
	return []Finding{ok("clock", "agrees with Vault's")}
}

// fileError drops the name that the finding's subject has already.
func fileError(err error) string {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}
