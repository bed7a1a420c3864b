package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/certfile"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

func certsIssueCommand() *cli.Command {
	return &cli.Command{
		Name:  "issue",
		Usage: "write certificates for servers that do not get them by themselves",
		Description: `Examples:
   phoenix certs issue -f estate.yaml --renew-before 8h
   phoenix certs issue -f estate.yaml --service postgres --out /etc/postgres/tls --owner root:999 --mode 0640 --reload 'docker kill -s HUP postgres'
   phoenix certs issue -f estate.yaml --service keycloak --out /etc/keycloak/tls --format pkcs12 --password-file /run/keystore-password
   phoenix certs issue -f estate.yaml --service vault --out /etc/vault/tls --self-signed

The key is made here, and Vault signs a request for it by the role of the
service or server. What is written, and for whom, stands under pki.material in
the estate; --service picks from it; --out makes the command line say all.

A folder gets tls.crt (the certificate with its intermediates) and ca.crt (all
roots to trust), and for each format
   pem       tls.key, PKCS #8 in PEM
   combined  tls.pem, certificate and key in one file
   pkcs8     tls.pk8, PKCS #8 in DER, for Java
   pkcs12    tls.p12 and ca.p12, with the password of --password-file
All are replaced in one step. They hold a key: give them a folder in memory,
or one that nobody else reads.

With --renew-before nothing is done while the certificate is good for longer,
its names and issuer and the roots are still right, and the last --reload
worked: run it from a timer. --reload is run by sh after a change; if it fails
the exit code is 1 and the next run tries again.

--self-signed is for Vault's own listener, which needs a certificate before
there is a PKI: give ca.crt to VAULT_CACERT. When a certificate of the PKI takes
its place, ca.crt goes on naming it until it ends.

` + certsIssueSchema,
		Flags: slices.Concat([]cli.Flag{
			estateFlag(),
			&cli.StringSliceFlag{Name: "service", Aliases: []string{"s"}, Usage: "write for this `SERVICE` or server; may be repeated"},
			&cli.StringFlag{Name: "out", Usage: "the `DIR` to write to", TakesFile: true},
			&cli.StringSliceFlag{Name: "format", Usage: "with --out, a `FORMAT`: " + strings.Join(provision.MaterialFormats(), ", "), DefaultText: "pem"},
			&cli.StringFlag{Name: "owner", Usage: "with --out, the files' `USER:GROUP`"},
			&cli.StringFlag{Name: "mode", Usage: "with --out, the `MODE` of files with the key", DefaultText: "0600"},
			&cli.StringFlag{Name: "password-file", Usage: "with --out, the `FILE` with the password for pkcs12; - is standard input", TakesFile: true},
			&cli.StringFlag{Name: "reload", Usage: "with --out, a shell `COMMAND` to run after a change"},
			&cli.DurationFlag{Name: "renew-before", Usage: "do nothing while the certificate is good for longer, like 8h", HideDefault: true},
			&cli.DurationFlag{Name: "ttl", Usage: "how long it shall be good", DefaultText: "as the estate says; 720h for --self-signed"},
			&cli.BoolFlag{Name: "self-signed", Usage: "without Vault: for Vault's own listener"},
			&cli.StringFlag{Category: "Operator", Name: "credentials", Usage: "log in with the `FILE` that phoenix issue wrote for the service", TakesFile: true},
			&cli.BoolFlag{Name: "json", Usage: "report in JSON"},
			auditFlag(),
		}, vaultFlags()),
		Action: certsIssue,
	}
}

const certsIssueSchema = `--json prints one object:
   material  list of {service, dir, action, serial, expires, reload}, action
             being issued or kept, reload ok, failed or none`

// An output is one folder to write.
type output struct {
	provision.Material
	folder   *certfile.Folder
	password secrets.Secret
	role     provision.CertRole
}

// issuedMaterial is a line of the report.
type issuedMaterial struct {
	Service string    `json:"service"`
	Dir     string    `json:"dir"`
	Action  string    `json:"action"`
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
	Reload  string    `json:"reload"`
}

// materialIssuer has what is needed to fill folders.
type materialIssuer struct {
	cmd    *cli.Command
	estate *provision.Estate
	client *vault.Client     // nil: self-signed
	trust  *provision.Trust  // nil: self-signed
	audit  auditlog.Recorder // of what is signed
}

func certsIssue(ctx context.Context, cmd *cli.Command) (err error) {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
	}
	estate, err := loadEstate(cmd)
	if err != nil {
		return err
	}
	outputs, err := chosenOutputs(cmd, estate)
	if err != nil {
		return err
	}
	audit, err := openAudit(ctx, cmd, nil)
	if err != nil {
		return err
	}
	defer audit.Close()
	m := &materialIssuer{cmd: cmd, estate: estate, audit: audit}
	if !cmd.Bool("self-signed") {
		client, end, err := connectAs(ctx, cmd, estate, outputs)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
		m.client = client
		if m.trust, err = provision.ReadTrust(ctx, client, estate, patience(cmd)); err != nil {
			return err
		}
	}
	var problems error
	report := []issuedMaterial{}
	for _, o := range outputs {
		line, err := m.fill(ctx, o)
		problems = errors.Join(problems, err)
		if line == nil {
			continue
		}
		report = append(report, *line)
		if !cmd.Bool("json") {
			fmt.Fprintf(stdout(cmd), "%s: %s %s in %s, good until %s\n", line.Service, line.Action, line.Serial, line.Dir, line.Expires.Format(time.RFC3339))
		}
	}
	if cmd.Bool("json") {
		problems = errors.Join(printJSON(stdout(cmd), map[string]any{"material": report}), problems)
	}
	return problems
}

// chosenOutputs says what to write, and finds out beforehand whether that is
// possible.
func chosenOutputs(cmd *cli.Command, estate *provision.Estate) ([]*output, error) {
	if estate.PKI == nil {
		return nil, usagef("%s has no section pki; add one", estate.File)
	}
	names := cmd.StringSlice("service")
	for _, name := range names {
		if _, err := estate.CertRole(name); err != nil {
			return nil, usagef("--service: %v", err)
		}
	}
	if before := cmd.Duration("renew-before"); before < 0 || cmd.IsSet("renew-before") && before == 0 {
		return nil, usagef("--renew-before must be a duration, like 8h")
	}
	if ttl := cmd.Duration("ttl"); ttl < 0 || ttl%time.Second != 0 {
		return nil, usagef("--ttl must be whole seconds, like 12h")
	}
	var all []provision.Material
	if cmd.String("out") != "" {
		m, err := outputOfFlags(cmd, names)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	} else {
		for _, flag := range []string{"format", "owner", "mode", "password-file", "reload"} {
			if cmd.IsSet(flag) {
				return nil, usagef("--%s needs --out; without it the estate's pki.material says what to write", flag)
			}
		}
		for _, m := range estate.PKI.Material {
			if len(names) == 0 || slices.Contains(names, m.For) {
				all = append(all, m)
			}
		}
	}
	if len(all) == 0 {
		return nil, usagef("nothing is to be written; name it under pki.material in %s, or give --service and --out", estate.File)
	}
	var outputs []*output
	for _, m := range all {
		o, err := newOutput(estate, m)
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, o)
	}
	return outputs, nil
}

func outputOfFlags(cmd *cli.Command, names []string) (provision.Material, error) {
	m := provision.Material{
		Dir: cmd.String("out"), Formats: cmd.StringSlice("format"), Owner: cmd.String("owner"), Mode: 0o600,
		PasswordFile: cmd.String("password-file"), Reload: cmd.String("reload"),
	}
	if len(names) != 1 {
		return m, usagef("--out needs one --service; a folder holds one certificate")
	}
	m.For = names[0]
	if len(m.Formats) == 0 {
		m.Formats = []string{"pem"}
	}
	for _, format := range m.Formats {
		if !slices.Contains(provision.MaterialFormats(), format) {
			return m, usagef("--format %s is unknown; there are %s", format, strings.Join(provision.MaterialFormats(), ", "))
		}
	}
	if text := cmd.String("mode"); text != "" {
		mode, err := provision.ParseMode(text)
		if err != nil {
			return m, usagef("--mode: %v", err)
		}
		m.Mode = mode
	}
	if slices.Contains(m.Formats, "pkcs12") != (m.PasswordFile != "") {
		return m, usagef("--format pkcs12 and --password-file go together; give both or none")
	}
	return m, nil
}

func newOutput(estate *provision.Estate, m provision.Material) (*output, error) {
	o := &output{Material: m}
	var err error
	if o.role, err = estate.CertRole(m.For); err != nil {
		return nil, usagef("%v", err)
	}
	uid, gid := -1, -1
	if m.Owner != "" {
		if uid, gid, err = provision.ParseOwner(m.Owner); err != nil {
			return nil, usagef("the owner of %s: %v", m.Dir, err)
		}
	}
	if m.PasswordFile != "" {
		if o.password, err = readPassword(m.PasswordFile); err != nil {
			return nil, err
		}
	}
	if o.folder, err = certfile.Open(certfile.Spec{Dir: m.Dir, Formats: m.Formats, UID: uid, GID: gid, Mode: m.Mode}); err != nil {
		return nil, usagef("the folder of %s: %v", m.For, err)
	}
	return o, nil
}

// maxPassword is the longest password in bytes.
const maxPassword = 1 << 10

func readPassword(path string) (secrets.Secret, error) {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return secrets.Secret{}, usagef("--password-file: %v", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPassword+1))
	if err != nil {
		return secrets.Secret{}, usagef("--password-file: %v", err)
	}
	defer clear(data)
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" || len(text) > maxPassword || strings.ContainsAny(text, "\r\n") {
		return secrets.Secret{}, usagef("--password-file must hold one line with the password, of %d bytes at most", maxPassword)
	}
	return secrets.NewString(text), nil
}

// fill writes one folder if that is due, and tells who reads it. The report is
// nil if nothing is known to be there.
func (m *materialIssuer) fill(ctx context.Context, o *output) (*issuedMaterial, error) {
	line := &issuedMaterial{Service: o.For, Dir: o.Dir, Action: "kept", Reload: "none"}
	leaf, ca, err := o.folder.Read()
	if m.due(o, leaf, ca, err) {
		cert, roots, err := m.obtain(ctx, o, ca)
		if err != nil {
			return nil, err
		}
		if err := o.folder.Write(certfile.Material{Leaf: cert.Leaf, Chain: cert.Chain, CA: roots, Key: cert.Key, Password: o.password}); err != nil {
			return nil, fmt.Errorf("the certificate of %s is not written: %w", o.For, err)
		}
		line.Action = "issued"
		if leaf, _, err = o.folder.Read(); err != nil {
			return nil, fmt.Errorf("the certificate of %s does not read back: %w", o.For, err)
		}
	}
	line.Serial, line.Expires = serial(leaf), leaf.NotAfter.UTC()
	if !o.folder.Pending() {
		return line, nil
	}
	if o.Reload != "" {
		line.Reload = "ok"
		if err := reload(ctx, o); err != nil {
			line.Reload = "failed"
			return line, fmt.Errorf("%s has its certificate in %s and was not told: %w; the next run tells it again", o.For, o.Dir, err)
		}
	}
	return line, o.folder.Reloaded()
}

// due reports whether there is to be another certificate.
func (m *materialIssuer) due(o *output, leaf *x509.Certificate, ca []*x509.Certificate, err error) bool {
	before := m.cmd.Duration("renew-before")
	if before == 0 || err != nil || time.Until(leaf.NotAfter) <= before || !sameNames(leaf, o.role) {
		return true
	}
	if m.trust == nil {
		return leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) != nil
	}
	want := slices.Concat(m.trust.Roots, pinned(ca))
	return leaf.CheckSignatureFrom(m.trust.Issuing) != nil || !slices.EqualFunc(ca, want, (*x509.Certificate).Equal)
}

func sameNames(leaf *x509.Certificate, role provision.CertRole) bool {
	var have, want []string
	for _, ip := range leaf.IPAddresses {
		have = append(have, ip.String())
	}
	for _, u := range leaf.URIs {
		have = append(have, u.String())
	}
	have = append(have, leaf.DNSNames...)
	for _, ip := range role.IPs {
		want = append(want, ip.String())
	}
	want = slices.Concat(want, role.URIs, role.DNS)
	slices.Sort(have)
	slices.Sort(want)
	return slices.Equal(have, want)
}

// obtain returns a certificate, and the authorities to write beside it.
func (m *materialIssuer) obtain(ctx context.Context, o *output, ca []*x509.Certificate) (*vault.Certificate, []byte, error) {
	ttl := m.cmd.Duration("ttl")
	if m.trust == nil {
		if ttl == 0 {
			ttl = selfSignedTTL
		}
		cert, err := selfSigned(o.role, ttl)
		if err != nil {
			return nil, nil, err
		}
		return cert, cert.Leaf, nil
	}
	cert, err := provision.IssueCert(ctx, m.client, m.estate, o.For, ttl, m.trust, m.audit)
	if err != nil {
		return nil, nil, err
	}
	roots := m.trust.PEM()
	for _, c := range pinned(ca) {
		roots = append(roots, encodeCert(c)...)
	}
	return cert, roots, nil
}

func reload(ctx context.Context, o *output) error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	child := exec.CommandContext(ctx, "/bin/sh", "-c", o.Reload)
	child.Env = append(withoutOperator(os.Environ()), "PHOENIX_CERT_DIR="+dir)
	child.Stdout, child.Stderr = os.Stderr, os.Stderr
	child.Cancel = func() error { return child.Process.Signal(os.Interrupt) }
	child.WaitDelay = 5 * time.Second
	if err := child.Run(); err != nil {
		return fmt.Errorf("the reload command failed: %w", err)
	}
	return nil
}
