package mongoconn_test

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tamshai/phoenix/dbconn/mongoconn"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A service takes its lease and its identity from the session.
func ExampleOpen() {
	run := func(ctx context.Context, leases secrets.LeaseSource, identity tlsconfig.Identity) error {
		db, err := mongoconn.Open(ctx, mongoconn.Config{Addr: "mongodb:27017", Leases: leases, Identity: identity})
		if err != nil {
			return err // says what happened, and what to do
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = db.Close(ctx) // those that still have the client are cut off
		}()
		return db.Use(ctx, func(ctx context.Context, client *mongo.Client) error {
			_, err := client.Database("tamshai").Collection("notes").InsertOne(ctx, bson.D{{Key: "text", Value: "hello"}})
			return err
		})
	}
	fmt.Println(run(context.Background(), nil, nil))
	// Output: mongoconn: read the configuration: the configuration is wrong: there is no source of credentials; set Leases to the session's source
}

// A connection string of somebody else's is no way around verification.
func ExampleParseURI() {
	_, _, err := mongoconn.ParseURI("mongodb://mongodb/tamshai?tls=true&tlsInsecure=true")
	fmt.Println(err)
	cfg, database, err := mongoconn.ParseURI("mongodb://mongodb/tamshai?tls=true&authSource=admin")
	fmt.Println(cfg.Addr, cfg.AuthSource, database, err)
	// Output:
	// mongoconn: read the connection string: the configuration is wrong: tlsinsecure is refused: it takes any server for this one; leave it out
	// mongodb admin tamshai <nil>
}
