package mongoconn_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tamshai/phoenix/dbconn/mongoconn"
)

func TestParseURI(t *testing.T) {
	for _, tt := range []struct {
		uri, addr, database string
		want                mongoconn.Config
	}{
		{"mongodb://mongodb/?tls=true", "mongodb", "", mongoconn.Config{}},
		{"mongodb://mongodb?tls=true", "mongodb", "", mongoconn.Config{}},
		{"mongodb://mongodb:27018/tamshai?ssl=true", "mongodb:27018", "tamshai", mongoconn.Config{AuthSource: "tamshai"}},
		{"mongodb://a,b:1,[::1]:2/tamshai?TLS=true&authsource=admin&replicaSet=rs0&retryWrites=true", "a,b:1,[::1]:2", "tamshai", mongoconn.Config{AuthSource: "admin", ReplicaSet: "rs0"}},
		{"mongodb://m/?tls=true;appName=mcp%20hr;connectTimeoutMS=1500;maxPoolSize=4;authMechanism=SCRAM-SHA-256;directConnection=true", "m", "",
			mongoconn.Config{ApplicationName: "mcp hr", ConnectTimeout: 1500 * time.Millisecond, MaxConns: 4}},
	} {
		got, database, err := mongoconn.ParseURI(tt.uri)
		if err != nil || got.Addr != tt.addr || database != tt.database || got.AuthSource != tt.want.AuthSource || got.ReplicaSet != tt.want.ReplicaSet ||
			got.ApplicationName != tt.want.ApplicationName || got.ConnectTimeout != tt.want.ConnectTimeout || got.MaxConns != tt.want.MaxConns {
			t.Errorf("%s: %+v, %q, %v", tt.uri, got, database, err)
		}
	}
}

// Each of these would weaken something, or mean something that is not seen.
func TestURITraps(t *testing.T) {
	for _, tt := range []struct{ uri, says string }{
		{"", "no connection string"},
		{"postgres://m/?tls=true", "no connection string"},
		{"MONGODB://m/?tls=true", "no connection string"},
		{"mongodb+srv://cluster.example.com/?tls=true", "DNS"},
		{"Mongodb+SRV://cluster.example.com/?tls=true", "DNS"},
		{"mongodb://m/", "plaintext"},
		{"mongodb://m", "plaintext"},
		{"mongodb://m/?tls=false", "plaintext"},
		{"mongodb://m/?tls=TRUE", "plaintext"},
		{"mongodb://m/?tls=", "plaintext"},
		{"mongodb://m/?ssl=false", "plaintext"},
		{"mongodb://m/?tls=true&tls=false", "twice: tls"},
		{"mongodb://m/?tls=true&ssl=false", "twice: tls"},
		{"mongodb://m/?tls=true;TLS=false", "twice: tls"},
		{"mongodb://m/?tls=true&tl%73=false", "twice: tls"},
		{"mongodb://m/?tls=true&tlsInsecure=true", "tlsinsecure"},
		{"mongodb://m/?tls=true&tlsInsecure=false", "tlsinsecure"},
		{"mongodb://m/?tlsInsecure=true&tls=true", "any server"},
		{"mongodb://m/?tls=true&TLS%49nsecure=true", "any server"},
		{"mongodb://m/?tls=true&tlsAllowInvalidCertificates=true", "any server"},
		{"mongodb://m/?tls=true&tlsAllowInvalidHostnames=true", "any service"},
		{"mongodb://m/?tls=true&tlsDisableCertificateRevocationCheck=true", "revocation"},
		{"mongodb://m/?tls=true&tlsDisableOCSPEndpointCheck=true", "revocation"},
		{"mongodb://m/?tlsCAFile=/etc/ca.pem", "who vouches"}, // implies TLS for the driver
		{"mongodb://m/?tls=true&tlsCertificateKeyFile=/etc/key.pem", "key on a disk"},
		{"mongodb://m/?tls=true&tlsCertificateKeyFilePassword=secret", "passphrase"},
		{"mongodb://app:secret@m/?tls=true", "credentials"},
		{"mongodb://app@m/?tls=true", "credentials"},
		{"mongodb://:secret@m/?tls=true", "credentials"},
		{"mongodb://@m/?tls=true", "credentials"},
		{"mongodb://m/secret@db?tls=true", "credentials"},
		{"mongodb://%2Ftmp%2Fmongodb-27017.sock/?tls=true", "Unix socket"},
		{"mongodb:///tmp/mongodb-27017.sock/?tls=true", "no server"},
		{"mongodb://mongodb-27017.sock/?tls=true", "Unix socket"},
		{"mongodb://m,/?tls=true", "empty"},
		{"mongodb://m,m:27017/?tls=true", "twice"},
		{"mongodb://m:0/?tls=true", "port"},
		{"mongodb://m:x/?tls=true", "port"},
		{"mongodb://::1/?tls=true", "write"},
		{"mongodb://m/?tls=true&authMechanism=PLAIN", "to the server"},
		{"mongodb://m/?tls=true&authMechanism=SCRAM-SHA-1", "to the server"},
		{"mongodb://m/?tls=true&authMechanism=MONGODB-AWS", "to the server"},
		{"mongodb://m/?tls=true&authMechanism=", "to the server"},
		{"mongodb://m/?tls=true&authMechanismProperties=SERVICE_HOST:evil", "elsewhere"},
		{"mongodb://m/?tls=true&authSource=$external", "other authorities"},
		{"mongodb://m/?tls=true&authSource=%24external", "other authorities"},
		{"mongodb://m/$external?tls=true", "database"},
		{"mongodb://m/?tls=true&proxyHost=evil", "server itself"},
		{"mongodb://m/?tls=true&loadBalanced=true", "whatever stands there"},
		{"mongodb://m/?tls=true&srvServiceName=evil", "DNS"},
		{"mongodb://m/?tls=true&compressors=zlib", "compression"},
		{"mongodb://m/?tls=true&w=0", "WriteConcern"},
		{"mongodb://m/?tls=true&maxPoolSize=0", "without end"},
		{"mongodb://m/?tls=true&connectTimeoutMS=0", "connectTimeoutMS"},
		{"mongodb://a,b/?tls=true&directConnection=true", "at odds"},
		{"mongodb://m/?tls=true&directConnection=false", "at odds"},
		{"mongodb://m/?tls=true&retryWrites=false", "retrywrites"},
		{"mongodb://m/?tls=true&sslMode=verify", "not known"},
		{"mongodb://m/?tls=true&=x", "malformed"},
		{"mongodb://m/?tls=true&tls", "malformed"},
		{"mongodb://m/?tls=true?tls=false", "malformed"},
		{"mongodb://m/&tls=true", "malformed"},
		{"mongodb://m/?tls=%zz", "malformed"},
		{"mongodb://m/?tls=true%00", "malformed"},
		{"mongodb://m/?tls=true\n", "control"},
		{"mongodb://m#?tls=true", "host"},
		{"mongodb://m\\@evil/?tls=true", "credentials"},
		{"mongodb://m evil/?tls=true", "host"},
	} {
		_, _, err := mongoconn.ParseURI(tt.uri)
		if !errors.Is(err, mongoconn.ErrConfig) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v", tt.uri, err)
			continue
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "evil") {
			t.Errorf("%q: the error shows a value: %v", tt.uri, err)
		}
	}
}

// What the gate lets through means the same to the driver, and TLS to it.
func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"mongodb://m/?tls=true", "mongodb://a:1,[::1]:2/db?tls=true&replicaSet=rs0;authSource=admin", "mongodb://u:p@m/?ssl=true", "mongodb+srv://m/?tls=true",
		"mongodb://m/?tls=true&tlsInsecure=true&appName=%41", "mongodb://%2Ftmp%2Fx.sock/?tls=true", "mongodb://m:27017/x%2ey?tls=true&tls=false",
		"mongodb://m/?tls=true&connectTimeoutMS=10&maxPoolSize=3&directConnection=true&authMechanism=SCRAM-SHA-256",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		cfg, database, err := mongoconn.ParseURI(uri)
		if err != nil {
			if !errors.Is(err, mongoconn.ErrConfig) {
				t.Fatalf("%v", err)
			}
			return
		}
		o := options.Client().ApplyURI(uri)
		if err := o.Validate(); err != nil {
			return // it is stricter than we are
		}
		if o.TLSConfig == nil || o.TLSConfig.InsecureSkipVerify || o.Auth != nil && o.Auth.Username+o.Auth.Password != "" {
			t.Fatalf("%q: the driver takes it for %+v", uri, o)
		}
		if len(o.Hosts) != strings.Count(cfg.Addr, ",")+1 {
			t.Fatalf("%q: %q for the driver, %q here", uri, o.Hosts, cfg.Addr)
		}
		for i, ours := range strings.Split(cfg.Addr, ",") {
			if theirs := o.Hosts[i]; !strings.EqualFold(withPort(ours), withPort(theirs)) {
				t.Fatalf("%q: %q for the driver, %q here", uri, theirs, ours)
			}
		}
		if o.AppName != nil && *o.AppName != cfg.ApplicationName || o.ReplicaSet != nil && *o.ReplicaSet != cfg.ReplicaSet {
			t.Fatalf("%q: %+v", uri, cfg)
		}
		_ = database
	})
}

func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), "27017")
}
