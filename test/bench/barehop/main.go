// Command barehop is the floor of BenchmarkHop: the reverse proxy of net/http and
// static certificates, with nothing that is not needed to verify the other side's
// name.
//
//	barehop serve ADDR CERT CA http://PROGRAM    # takes mutual TLS of "gateway"
//	barehop call ADDR CERT CA https://CALLEE     # and makes it, to "hr"
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	cert, err := tls.LoadX509KeyPair(os.Args[3], os.Args[3])
	check(err)
	pem, err := os.ReadFile(os.Args[4])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	to, err := url.Parse(os.Args[5])
	check(err)
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
	via := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	srv := &http.Server{Addr: os.Args[2], ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Transport: via, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
	}}
	if os.Args[1] == "call" {
		config.RootCAs, config.ServerName = roots, "hr"
		via.TLSClientConfig = config
		check(srv.ListenAndServe())
	}
	config.ClientCAs, config.ClientAuth = roots, tls.RequireAndVerifyClientCert
	config.VerifyConnection = func(cs tls.ConnectionState) error { return cs.PeerCertificates[0].VerifyHostname("gateway") }
	srv.TLSConfig = config
	check(srv.ListenAndServeTLS("", ""))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
