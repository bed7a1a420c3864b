package dbconn_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/secrets"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A service takes its lease and its issuer from the session.
func ExampleOpen() {
	run := func(ctx context.Context, leases secrets.LeaseSource, certs tlsconfig.Issuer) error {
		db, err := dbconn.Open(ctx, dbconn.Config{
			Addr: "postgres:5432", Database: "tamshai_hr", Leases: leases, Certs: certs,
			Settings: []string{"app.current_user_id", "app.current_user_roles"},
		})
		if err != nil {
			return err // says what happened, and what to do
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = db.Close(ctx) // those that are still out are cut off
		}()
		ctx = dbconn.WithSettings(ctx, dbconn.Settings{"app.current_user_id": "42"})
		_, err = db.Exec(ctx, "UPDATE hr.requests SET state = 'done' WHERE id = $1", 7)
		return err
	}
	fmt.Println(run(context.Background(), dbconn.Fixed("u", secrets.NewString("p")), nil))
	// Output: dbconn: read the configuration: the configuration is wrong: nobody vouches for the server; set Certs, or Roots
}

// A connection string of somebody else's is no way around verification.
func ExampleParseDSN() {
	_, err := dbconn.ParseDSN("postgres://app:secret@db/hr?sslmode=require")
	fmt.Println(err)
	d, err := dbconn.ParseDSN("postgres://app:secret@db/hr?sslmode=verify-full&sslrootcert=/etc/ca.pem")
	fmt.Println(d, err)
	// Output:
	// dbconn: read the connection string: the configuration is wrong: sslmode has a value that is refused: any other mode takes another server for this one, or no TLS for TLS; write sslmode=verify-full
	// db:5432/hr <nil>
}

// A password in a KV secret, as a deployment has before it has dynamic roles.
func ExampleFromKV() {
	open := func(ctx context.Context, store *secrets.Store, certs tlsconfig.Issuer) (*dbconn.DB, error) {
		from, err := dbconn.FromKV(store, "tamshai", "tamshai/databases#tamshai_db_password")
		if err != nil {
			return nil, err
		}
		return dbconn.Open(ctx, dbconn.Config{Addr: "postgres:5432", Database: "tamshai_hr", Leases: from, Certs: certs})
	}
	fmt.Printf("%T\n", open)
	// Output: func(context.Context, *secrets.Store, tlsconfig.Issuer) (*dbconn.DB, error)
}

// database/sql on the same pool.
func ExampleDB_SQL() {
	count := func(ctx context.Context, db *dbconn.DB) (n int, err error) {
		std := db.SQL()
		defer std.Close()
		err = std.QueryRowContext(ctx, "SELECT count(*) FROM hr.employees").Scan(&n)
		return n, err
	}
	fmt.Printf("%T\n", count)
	// Output: func(context.Context, *dbconn.DB) (int, error)
}
