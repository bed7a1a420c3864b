package realmongo_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/realmongo"
)

func TestMain(m *testing.M) { leak.Main(m) }

// What is written stays over a crash, at the same address.
func TestRestart(t *testing.T) {
	m := realmongo.Start(t, realmongo.Config{})
	addr := m.Addr()
	m.Do(t, func(ctx context.Context, client *mongo.Client) error {
		_, err := client.Database("test").Collection("c").InsertOne(ctx, bson.D{{Key: "a", Value: 1}})
		return err
	})
	m.Kill()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("a killed server listens")
	}
	m.Restart(t)
	m.Do(t, func(ctx context.Context, client *mongo.Client) error {
		n, err := client.Database("test").Collection("c").CountDocuments(ctx, bson.D{})
		if n != 1 || m.Addr() != addr {
			t.Errorf("%d documents at %s, before at %s", n, m.Addr(), addr)
		}
		return err
	})
}

// The server lets nobody in without a certificate, nor with a password that
// was changed or a user that was dropped.
func TestStrangers(t *testing.T) {
	m := realmongo.Start(t, realmongo.Config{})
	conn, err := tls.Dial("tcp", m.Addr(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is the client that is tested
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}

	open := realmongo.Start(t, realmongo.Config{NoTLS: true})
	try := func(password string) error {
		client, err := mongo.Connect(options.Client().SetHosts([]string{open.Addr()}).SetDirect(true).
			SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", Username: "app", Password: password}))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Disconnect(t.Context()) //nolint:errcheck // it is over
		return client.Database("test").Collection("c").FindOne(t.Context(), bson.D{}).Err()
	}
	open.AddUser(t, "app", "first")
	if err := try("first"); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Error(err)
	}
	open.SetPassword(t, "app", "second")
	if err := try("second"); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Error(err)
	}
	refused := func(password string) {
		t.Helper()
		var command mongo.CommandError
		if err := try(password); !errors.As(err, &command) || command.Code != 18 {
			t.Errorf("%v", err)
		}
	}
	refused("first")
	open.DropUser(t, "app")
	refused("second")
}
