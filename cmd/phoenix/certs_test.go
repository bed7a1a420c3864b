package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/tamshai/phoenix/internal/realvault"
)

// expand FILE: replaces $NAME in it.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}

// perm is "perm 0640 FILE", of what a link leads to.
func perm(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has the mode %s", args[1], got)
	}
}

// listen DIR: starts a Vault whose listener has the certificate in DIR. It
// takes the place of the script's.
func listen(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value(vaultsT{}).(testing.TB)
	server := realvault.StartT(t, realvault.Config{Mode: realvault.File, CertDir: ts.MkAbs(args[0])})
	ts.Setenv("VAULT_ADDR", server.Addr())
	ts.Setenv("VAULT_TOKEN", server.RootToken())
	ts.Setenv("ROOT", server.RootToken())
	ts.Setenv("PID", strconv.Itoa(server.PID()))
}

// vaultsT is the key of the test in a script's values.
type vaultsT struct{}

// shows CA NAME: the Vault's listener has a certificate that CA vouches for, and
// whose issuer has the name.
func shows(ts *testscript.TestScript, neg bool, args []string) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[0])))
	await(ts, func() bool {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(ts.Getenv("VAULT_ADDR"), "https://"), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})
		if err != nil {
			return neg
		}
		defer conn.Close()
		return !neg && conn.ConnectionState().PeerCertificates[0].Issuer.CommonName == args[1]
	}, "the listener's certificate is not by "+args[1])
}

// certinfo DIR PASSWORD: reads every form that is in the folder as its reader
// would, checks that they belong together, and prints names, issuer and roots.
func certinfo() {
	check := func(err error) {
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(os.Args[1], name))
		if os.IsNotExist(err) {
			return nil
		}
		check(err)
		return data
	}
	say := func(what string, list ...string) { os.Stdout.WriteString(what + ": " + strings.Join(list, " ") + "\n") }
	crt := read("tls.crt")
	block, _ := pem.Decode(crt)
	leaf, err := x509.ParseCertificate(block.Bytes)
	check(err)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for block, rest := pem.Decode(read("ca.crt")); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		check(err)
		roots.AddCert(c)
		say("trusts", c.Subject.CommonName)
	}
	between.AppendCertsFromPEM(crt)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	check(err)
	names := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	say("names", names...)
	say("issuer", leaf.Issuer.CommonName)
	if key := read("tls.key"); key != nil {
		_, err := tls.X509KeyPair(crt, key)
		check(err)
		say("pem", "fits")
	}
	if both := read("tls.pem"); both != nil {
		_, err := tls.X509KeyPair(both, both)
		check(err)
		say("combined", "fits")
	}
	if der := read("tls.pk8"); der != nil {
		_, err := tls.X509KeyPair(crt, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		check(err)
		say("pkcs8", "fits")
	}
	if p12 := read("tls.p12"); p12 != nil {
		_, cert, chain, err := pkcs12.DecodeChain(p12, os.Args[2])
		check(err)
		if !cert.Equal(leaf) || len(chain) != 1 {
			check(os.ErrInvalid)
		}
		trusted, err := pkcs12.DecodeTrustStore(read("ca.p12"), os.Args[2])
		check(err)
		say("pkcs12", "fits", strconv.Itoa(len(trusted)))
	}
}

// revokeall MOUNT: revokes every certificate of the default issuer's
// predecessors, as an operator does with those that are replaced.
func revokeAll(ts *testscript.TestScript, _ bool, args []string) {
	client := rootClient(ts)
	defer client.Close()
	ctx := context.Background()
	serials, err := client.List(ctx, args[0]+"/certs")
	ts.Check(err)
	ca, err := client.Read(ctx, args[0]+"/cert/ca", nil)
	ts.Check(err)
	issuer := parseOne(ts, ca.Data["certificate"])
	for _, number := range serials {
		resp, err := client.Read(ctx, args[0]+"/cert/"+number, nil)
		ts.Check(err)
		if cert := parseOne(ts, resp.Data["certificate"]); !cert.IsCA && cert.CheckSignatureFrom(issuer) != nil {
			_, err := client.Write(ctx, args[0]+"/revoke", map[string]any{"serial_number": number})
			ts.Check(err)
		}
	}
}

func parseOne(ts *testscript.TestScript, text any) *x509.Certificate {
	block, _ := pem.Decode(fmt.Append(nil, text))
	cert, err := x509.ParseCertificate(block.Bytes)
	ts.Check(err)
	return cert
}
