package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/internal/sealed"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

// selfSignedTTL is how long there is time to make the PKI.
const selfSignedTTL = 30 * 24 * time.Hour

// selfSigned makes a certificate that vouches for itself and for nothing else:
// with its key nobody can sign another.
func selfSigned(role provision.CertRole, ttl time.Duration) (*vault.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: role.CommonName()}, DNSNames: role.DNS, IPAddresses: role.NetIPs(), URIs: role.ParsedURIs(),
		NotBefore: now.Add(-30 * time.Second), NotAfter: now.Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &vault.Certificate{
		Leaf: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  secrets.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}, nil
}

// pinned returns what selfSigned has made, and what is still good.
func pinned(list []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range list {
		if !c.IsCA && time.Now().Before(c.NotAfter) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			out = append(out, c)
		}
	}
	return out
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// serial writes a serial number as Vault does: "3a:5e:…".
func serial(c *x509.Certificate) string {
	var parts []string
	for _, b := range c.SerialNumber.Bytes() {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}

// connectAs returns a client with the operator's token, or with that of the
// service whose credential --credentials names.
func connectAs(ctx context.Context, cmd *cli.Command, estate *provision.Estate, outputs []*output) (*vault.Client, func() error, error) {
	path := cmd.String("credentials")
	if path == "" {
		return connect(ctx, cmd, estate)
	}
	for _, o := range outputs {
		if o.For != outputs[0].For {
			return nil, nil, usagef("--credentials are those of one service; give --service")
		}
	}
	service, err := estate.Service(outputs[0].For)
	if err != nil {
		return nil, nil, usagef("--credentials: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, usagef("--credentials: %v", err)
	}
	defer clear(text)
	vars, err := sealed.ParseEnv(text)
	if err != nil {
		return nil, nil, usagef("--credentials: %v", err)
	}
	roleID, secretID := vars[service.EnvName("ROLE_ID")], vars[service.EnvName("SECRET_ID")]
	if roleID.IsZero() || secretID.IsZero() {
		return nil, nil, usagef("--credentials %s holds no %s and %s", path, service.EnvName("ROLE_ID"), service.EnvName("SECRET_ID"))
	}
	return logInAs(ctx, cmd, estate, service, roleID, secretID)
}

func logInAs(ctx context.Context, cmd *cli.Command, estate *provision.Estate, service provision.Service, roleID, secretID secrets.Secret) (*vault.Client, func() error, error) {
	cfg, err := vaultConfig(cmd)
	if err != nil {
		return nil, nil, err
	}
	client, err := vault.New(cfg)
	if err != nil {
		return nil, nil, usagef("%v", err)
	}
	fail := func(err error) (*vault.Client, func() error, error) {
		client.Close()
		return nil, nil, fmt.Errorf("log in as %s: %w", service.Name, err)
	}
	if vault.IsWrapping(secretID) {
		unwrapped, err := client.Unwrap(ctx, secretID)
		if err != nil {
			return fail(err)
		}
		secretID = unwrapped.Value
	}
	auth, err := client.Login(ctx, estate.AppRole.Mount, roleID.Reveal(), secretID)
	if err != nil {
		return fail(err)
	}
	mine, err := client.WithToken(auth.Token)
	if err != nil {
		return fail(err)
	}
	return mine, func() error {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		err := mine.RevokeSelf(bounded)
		client.Close()
		if err != nil {
			return errors.Join(errors.New("the session is not ended, and ends by itself"), err)
		}
		return nil
	}, nil
}
