package tlsconfig_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// In a service, these come from bootstrap.Session or OpenFiles.
func exampleIdentities() (server, client tlsconfig.Identity) {
	ca := testpki.NewCA("root")
	identity := func(name string) tlsconfig.Identity {
		p := ca.Issue(testpki.Spec{DNS: []string{name}})
		m, err := tlsconfig.NewMaterial(p.Key, p.Chain, []*x509.Certificate{ca.Cert})
		if err != nil {
			log.Fatal(err)
		}
		return tlsconfig.Static(m)
	}
	return identity("mcp-hr"), identity("mcp-gateway")
}

// A server that knows who asks, and a client that knows whom it asks.
func Example() {
	hr, gateway := exampleIdentities()

	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := tlsconfig.Peer(r)
		fmt.Fprintf(w, "hello %s", peer)
	})}
	drainer, err := tlsconfig.WrapServer(srv, hr, tlsconfig.AllowDNS("mcp-gateway"))
	if err != nil {
		log.Fatal(err)
	}
	defer drainer.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.ServeTLS(l, "", "")
	defer srv.Close()

	transport := tlsconfig.NewTransport(nil, gateway, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
	defer transport.Close()
	client := &http.Client{Transport: transport}
	resp, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fmt.Println(string(text), err)
	// Output: hello mcp-gateway <nil>
}

// Any protocol: here one line each way.
func ExampleConns() {
	hr, gateway := exampleIdentities()
	server := tlsconfig.Config{}.ServerConns(hr, tlsconfig.AllowDNS("mcp-gateway"))
	defer server.Close()
	client := tlsconfig.Config{}.ClientConns(gateway, tlsconfig.AllowDNS("mcp-hr"))
	defer client.Close()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		raw, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		conn, err := server.Handshake(context.Background(), raw, "")
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "hello %s\n", conn.Peer())
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	conn, err := client.Handshake(context.Background(), raw, "mcp-hr")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(line, err)
	// Output:
	// hello mcp-gateway
	// <nil>
}

// Client is for a library that wants a *tls.Config, such as a driver.
func ExampleClient() {
	_, gateway := exampleIdentities()
	config := tlsconfig.Client(gateway, "postgres", tlsconfig.AllowDNS("postgres"))
	fmt.Println(config.ServerName, config.MinVersion == tls.VersionTLS13)
	// Output: postgres true
}

// Certificates that somebody else writes.
func ExampleOpenFiles() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ca := testpki.NewCA("root")
	pair := ca.Issue(testpki.Spec{DNS: []string{"mcp-hr"}})
	for name, text := range map[string][]byte{"tls.crt": pair.CertPEM(), "tls.key": pair.KeyPEM(), "ca.crt": testpki.PEM(ca.Cert)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			log.Fatal(err)
		}
	}

	files, err := tlsconfig.OpenFiles(context.Background(), tlsconfig.FilesConfig{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Bundle: filepath.Join(dir, "ca.crt")})
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	fmt.Println(files.Current().Leaf().DNSNames, files.Current().Generation(), files.Err())
	// Output: [mcp-hr] 1 <nil>
}

// A certificate that the CRL lists is refused.
func ExampleOpenRevocation() {
	ca := testpki.NewCA("root")
	own, stolen := ca.Issue(testpki.Spec{DNS: []string{"mcp-hr"}}), ca.Issue(testpki.Spec{DNS: []string{"mcp-gateway"}})
	m, err := tlsconfig.NewMaterial(own.Key, own.Chain, []*x509.Certificate{ca.Cert})
	if err != nil {
		log.Fatal(err)
	}
	identity := tlsconfig.Static(m)
	revocation, err := tlsconfig.OpenRevocation(context.Background(), tlsconfig.RevocationConfig{
		Identity: identity,
		// With Vault: tlsconfig.FetchURL(nil, "https://vault:8200/v1/pki/crl")
		Fetch: []tlsconfig.CRLFetch{func(context.Context) ([]byte, error) { return ca.CRL(1, time.Hour, stolen), nil }},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer revocation.Close()
	config := tlsconfig.Config{Revocation: revocation}.Server(identity, tlsconfig.AllowDNS("mcp-gateway"))

	here, there := net.Pipe()
	go func() {
		conn := tls.Client(here, plain(stolen))
		io.Copy(io.Discard, conn)
	}()
	err = tls.Server(there, config).Handshake()
	here.Close()
	var refused *tlsconfig.RefusedError
	fmt.Println(errors.As(err, &refused), refused.Reason)
	// Output: true revoked
}
