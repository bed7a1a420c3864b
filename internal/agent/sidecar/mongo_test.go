package sidecar_test

import (
	"context"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/realmongo"
)

// A driver that knows nothing of TLS, and a server that demands certificates.
func TestTunnelToMongo(t *testing.T) {
	w := newWorld(t)
	pair := w.pair("mongodb")
	server := realmongo.Start(t, realmongo.Config{CA: w.ca, Certificate: &pair})
	server.AddUser(t, "sales", "s3cr3t")
	_, sc := w.tunnel(server.Addr(), sidecar.Host{Drain: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	insert := func() error {
		client, err := mongo.Connect(options.Client().SetHosts([]string{sc.Addr(anywhere).String()}).SetDirect(true).
			SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", Username: "sales", Password: "s3cr3t"}))
		if err != nil {
			return err
		}
		defer client.Disconnect(ctx) //nolint:errcheck // it is over
		_, err = client.Database("tamshai_sales").Collection("deals").InsertOne(ctx, bson.D{{Key: "what", Value: "deal"}})
		return err
	}
	for range 3 {
		if err := insert(); err != nil {
			t.Fatal(err)
		}
		w.rotate("mcp-sales")
	}
	var deals int64
	server.Do(t, func(ctx context.Context, client *mongo.Client) (err error) {
		deals, err = client.Database("tamshai_sales").Collection("deals").CountDocuments(ctx, bson.D{})
		return err
	})
	if e := sc.Edges()[0]; deals != 3 || e.TLS < 3 {
		t.Errorf("%d deals, %+v", deals, e)
	}
}
