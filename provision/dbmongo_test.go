package provision_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tamshai/phoenix/internal/realmongo"
	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/provision"
)

const onMongo = `
owner: owner-NN
servers:
  mongodb: {kind: mongodb}
databases:
  tamshai_sales: {server: mongodb}
database_users:
  mount: database-NN
  connections:
    mongodb: {addr: "ADDR", password: {env: VAULT_MONGODB_PASSWORD}, HOW}
  roles:
    sales-NN: {database: tamshai_sales, grant: [readWrite]}
  static:
    tamshai_app: {server: mongodb}
`

// Real Vault's plugin reaches a server that speaks MongoDB's protocol over
// verified TLS, with and without a certificate of its own, replaces its password
// and that of a static role. The server has no roles, and so makes no users that
// Vault asks for: what is written for those is compared alone.
func TestDatabaseUsersOnMongoDB(t *testing.T) {
	for name, strangers := range map[string]bool{"that accepts strangers": true, "that demands a certificate": false} {
		t.Run(name, func(t *testing.T) {
			w := onReal(t)
			m := realmongo.Start(t, realmongo.Config{Strangers: strangers})
			// As an operator would write them on Vault's host.
			dir := t.TempDir()
			caFile, clientFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "tls.pem")
			pair := m.CA().Issue(testpki.Spec{CN: "vault"})
			for path, text := range map[string][]byte{caFile: testpki.PEM(m.CA().Cert), clientFile: slices.Concat(pair.CertPEM(), pair.KeyPEM())} {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			how := fmt.Sprintf("ca: {vault_file: %s}, client_file: %s", caFile, clientFile)
			if strangers {
				how = fmt.Sprintf("ca: {file: %s}", caFile)
			}
			estate := func(addr string) *provision.Estate {
				return w.estate(strings.NewReplacer("ADDR", addr, "HOW", how).Replace(onMongo))
			}
			e := estate(m.Addr())
			only := provision.PlanConfig{Only: []provision.Stage{provision.StageDatabases}}
			first := "first-password-of-" + w.n
			w.env["VAULT_MONGODB_PASSWORD"] = first
			values.add(first)
			if _, err := w.tryApply(w.plan(e, only)); err == nil || !strings.Contains(err.Error(), "make its user vault there") {
				t.Fatalf("without its user: %v", err)
			}
			m.AddUser(t, "vault", first)
			m.AddUser(t, "tamshai_app", "by hand")
			w.apply(e, only)
			if p := w.plan(e, only); p.Drift() {
				t.Errorf("drift after apply: %+v", p.Changes)
			}
			if r := w.apply(e, only); r.Writes != 0 {
				t.Errorf("the second apply: %d writes", r.Writes)
			}

			creds := w.read("database-" + w.n + "/static-creds/tamshai_app")
			current := fmt.Sprint(creds["password"])
			values.add(current)
			login := func(user, password string) error {
				client, err := mongo.Connect(options.Client().SetHosts([]string{m.Addr()}).SetDirect(true).SetTLSConfig(&tls.Config{
					RootCAs: pool(m.CA().Cert), Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf().Raw}, PrivateKey: pair.Key}},
				}).SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", Username: user, Password: password}))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Disconnect(t.Context()) //nolint:errcheck // it is over
				_, err = client.Database("tamshai_sales").Collection("c").CountDocuments(t.Context(), bson.D{})
				return err
			}
			if err := login("tamshai_app", current); err != nil {
				t.Errorf("the static role: %v", err)
			}
			for user, password := range map[string]string{"vault": first, "tamshai_app": "by hand"} {
				if login(user, password) == nil {
					t.Errorf("%s still gets in with its first password", user)
				}
			}

			// A server with another certificate is not let see a password.
			// Vault takes the statement for what it is, and the server for too much.
			if _, err := w.client.Read(t.Context(), "database-"+w.n+"/creds/sales-"+w.n, nil); err == nil || !strings.Contains(err.Error(), "roles") {
				t.Errorf("a user: %v", err)
			}

			if !strangers {
				return // it takes Vault 5 s to give up
			}
			other := realmongo.Start(t, realmongo.Config{Strangers: strangers})
			if _, err := w.tryApply(w.plan(estate(other.Addr()), only)); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
				t.Errorf("another server's certificate: %v", err)
			}
		})
	}
}

func pool(cert *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(cert)
	return p
}
