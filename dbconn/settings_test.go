package dbconn_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// The settings that the deployment's policies read.
var five = []string{"app.current_user_id", "app.current_user_email", "app.current_user_roles", "app.current_department_id", "app.current_manager_id"}

// newIdentity is a world with rows that belong to users, and a pool of one
// connection, so that everybody gets the one that the last user had.
func newIdentity(t *testing.T) (*world, *dbconn.DB) {
	w := newWorld(t, realpg.Config{})
	w.pg.Exec(t, "postgres", `CREATE TABLE pay (owner text, amount int);
		INSERT INTO pay VALUES ('alice', 1), ('bob', 2);
		ALTER TABLE pay ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON pay USING (owner = current_setting('app.current_user_id', true));
		GRANT SELECT, INSERT, UPDATE ON pay TO app;
		CREATE FUNCTION become(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.current_user_id', $1, false) $$;`)
	w.leases.next()
	c := w.config()
	c.MaxConns, c.Settings = 1, five
	return w, open(t, c)
}

func as(ctx context.Context, user string) context.Context {
	return dbconn.WithSettings(ctx, dbconn.Settings{"app.current_user_id": user})
}

// visible is what q sees of the table.
func visible(ctx context.Context, t *testing.T, q interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}) string {
	t.Helper()
	rows, err := q.Query(ctx, "SELECT owner FROM pay ORDER BY owner")
	if err != nil {
		t.Fatal(err)
	}
	owners, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(owners, ",")
}

// Each way to use the pool carries the context's identity, and no other.
func TestWithSettings(t *testing.T) {
	_, db := newIdentity(t)
	ctx := t.Context()
	alice, bob := as(ctx, "alice"), as(ctx, "bob")
	if got := visible(alice, t, db); got != "alice" {
		t.Errorf("Query: alice sees %q", got)
	}
	var owner string
	if err := db.QueryRow(bob, "SELECT owner FROM pay").Scan(&owner); err != nil || owner != "bob" {
		t.Errorf("QueryRow: bob sees %q, %v", owner, err)
	}
	if tag, err := db.Exec(alice, "UPDATE pay SET amount = amount + 1"); err != nil || tag.RowsAffected() != 1 {
		t.Errorf("Exec: %v, %v", tag, err)
	}
	tx, err := db.Begin(bob)
	if err != nil {
		t.Fatal(err)
	}
	if got := visible(ctx, t, tx); got != "bob" {
		t.Errorf("Begin: bob sees %q", got)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Error(err)
	}
	batch := &pgx.Batch{}
	batch.Queue("SELECT string_agg(owner, ',') FROM pay").QueryRow(func(row pgx.Row) error { return row.Scan(&owner) })
	if err := db.SendBatch(alice, batch).Close(); err != nil || owner != "alice" {
		t.Errorf("SendBatch: alice sees %q, %v", owner, err)
	}
	if n, err := db.CopyFrom(alice, pgx.Identifier{"entries"}, []string{"worker"}, pgx.CopyFromRows([][]any{{1}})); err != nil || n != 1 {
		t.Errorf("CopyFrom: %d, %v", n, err)
	}
	if err := db.Ping(alice); err != nil {
		t.Error(err)
	}
	if got := visible(ctx, t, db); got != "" {
		t.Errorf("nobody sees %q", got)
	}
	// What is not given is empty, not left over.
	all := dbconn.Settings{}
	for _, name := range five {
		all[name] = "x-" + name
	}
	var values string
	const sql = "SELECT concat_ws('|', current_setting('app.current_user_id'), current_setting('app.current_user_email'), current_setting('app.current_manager_id'))"
	if err := db.QueryRow(dbconn.WithSettings(ctx, all), sql).Scan(&values); err != nil || values != "x-app.current_user_id|x-app.current_user_email|x-app.current_manager_id" {
		t.Errorf("%q, %v", values, err)
	}
	if err := db.QueryRow(alice, sql).Scan(&values); err != nil || values != "alice||" {
		t.Errorf("%q, %v", values, err)
	}
	// A map that is changed later changes nothing.
	changed := dbconn.Settings{"app.current_user_id": "alice"}
	held := dbconn.WithSettings(ctx, changed)
	changed["app.current_user_id"] = "bob"
	if got := visible(held, t, db); got != "alice" {
		t.Errorf("sees %q", got)
	}
}

// Whatever the last user did to the session, the next one does not get it. The
// pool has one connection, so the next one would.
func TestNobodyInheritsAnIdentity(t *testing.T) {
	_, db := newIdentity(t)
	ctx := t.Context()
	alice := as(ctx, "alice")
	exec := func(sql string, args ...any) func() error {
		return func() error { _, err := db.Exec(alice, sql, args...); return err }
	}
	inTx := func(end func(pgx.Tx) error, statements ...string) func() error {
		return func() error {
			tx, err := db.Begin(alice)
			if err != nil {
				return err
			}
			for _, sql := range statements {
				_, _ = tx.Exec(ctx, sql) // some are meant to fail
			}
			return end(tx)
		}
	}
	commit := func(tx pgx.Tx) error { return tx.Commit(ctx) }
	rollback := func(tx pgx.Tx) error { return tx.Rollback(ctx) }
	raw := func(statements ...string) func() error {
		return func() error {
			conn, err := db.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			for _, sql := range statements {
				if _, err := conn.Exec(ctx, sql); err != nil {
					return err
				}
			}
			return nil
		}
	}
	tests := map[string]func() error{
		"a statement":            exec("SELECT 1"),
		"set for the session":    exec("SET app.current_user_id = 'alice'"),
		"set_config":             exec("SELECT set_config('app.current_user_id', 'alice', false)"),
		"set_config by a value":  exec("SELECT set_config('app.current_user_id', $1, false)", "alice"),
		"in a function":          exec("SELECT become('alice')"),
		"in a DO block":          exec("DO $$ BEGIN PERFORM set_config('app.current_user_id', 'alice', false); END $$"),
		"committed early":        exec("COMMIT; SET app.current_user_id = 'alice'"),
		"in a transaction":       inTx(commit, "SET SESSION app.current_user_id = 'alice'"),
		"rolled back":            inTx(rollback, "SET app.current_user_id = 'alice'"),
		"an aborted transaction": inTx(rollback, "SET app.current_user_id = 'alice'", "SELECT nonsense"),
		"aborted, then commit":   func() error { _ = inTx(commit, "SET app.current_user_id = 'alice'", "SELECT nonsense")(); return nil },
		"a savepoint":            inTx(commit, "SAVEPOINT a", "SET app.current_user_id = 'alice'", "RELEASE a"),
		"committed in SQL":       func() error { _ = inTx(rollback, "COMMIT", "SET app.current_user_id = 'alice'")(); return nil },
		"chained": func() error {
			_ = inTx(rollback, "COMMIT AND CHAIN", "SET SESSION app.current_user_id = 'alice'", "COMMIT")()
			return nil
		},
		"a raw connection":      raw("SET app.current_user_id = 'alice'"),
		"another role":          raw("SET app.current_user_id = 'alice'", "SET ROLE app"),
		"a prepared statement":  raw("PREPARE become AS SELECT set_config('app.current_user_id', 'alice', false)", "EXECUTE become", "DEALLOCATE become"),
		"a temporary table":     raw("CREATE TEMP TABLE pay AS SELECT 'alice' AS owner", "SET app.current_user_id = 'alice'"),
		"a path to other names": raw("SET search_path = pg_temp, public", "SET app.current_user_id = 'alice'"),
		"a transaction left open": func() error {
			conn, err := db.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			_, err = conn.Exec(ctx, "BEGIN; SET app.current_user_id = 'alice'")
			return err
		},
		"a pipeline": func() error {
			batch := &pgx.Batch{}
			batch.Queue("SET app.current_user_id = 'alice'")
			batch.Queue("SELECT become($1)", "alice")
			return db.SendBatch(alice, batch).Close()
		},
		"a pipeline that breaks": func() error {
			batch := &pgx.Batch{}
			batch.Queue("SELECT become($1)", "alice")
			batch.Queue("SELECT 1/0")
			if db.SendBatch(alice, batch).Close() == nil {
				return errors.New("it did not break")
			}
			return nil
		},
		"rows that nobody reads": func() error {
			rows, err := db.Query(alice, "SELECT become('alice') FROM generate_series(1, 1000)")
			if err == nil {
				rows.Close()
			}
			return err
		},
		"a cancelled statement": func() error {
			brief, cancel := context.WithTimeout(alice, 50*time.Millisecond)
			defer cancel()
			if _, err := db.Exec(brief, "SELECT become('alice'), pg_sleep(60)"); err == nil {
				return errors.New("it was not cancelled")
			}
			return nil
		},
	}
	for name, leave := range tests {
		t.Run(name, func(t *testing.T) {
			if err := leave(); err != nil {
				t.Fatal(err)
			}
			// Without an identity, with another one, and on a bare connection.
			if got := visible(ctx, t, db); got != "" {
				t.Errorf("the next user, nobody, sees %q", got)
			}
			if err := leave(); err != nil {
				t.Fatal(err)
			}
			if got := visible(as(ctx, "bob"), t, db); got != "bob" {
				t.Errorf("the next user, bob, sees %q", got)
			}
			if err := leave(); err != nil {
				t.Fatal(err)
			}
			if got := visible(dbconn.WithSettings(ctx, dbconn.Settings{"app.current_user_email": "x"}), t, db); got != "" {
				t.Errorf("the next user, without an ID, sees %q", got)
			}
			if err := leave(); err != nil {
				t.Fatal(err)
			}
			conn, err := db.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			if got := visible(ctx, t, conn); got != "" {
				t.Errorf("on a bare connection nobody sees %q", got)
			}
			var role bool
			if err := conn.QueryRow(ctx, "SELECT current_user = session_user AND to_regclass('pg_temp.pay') IS NULL").Scan(&role); err != nil || !role {
				t.Errorf("a role or a table is left, %v", err)
			}
		})
	}
}

// Many users at once on few connections: each sees its own, always.
func TestIdentitiesUnderLoad(t *testing.T) {
	w, _ := newIdentity(t)
	w.leases.next()
	c := w.config()
	c.MaxConns, c.Settings = 3, five
	db := open(t, c)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := []string{"alice", "bob", ""}[i%3]
			for n := range 60 {
				if i == 0 && n%20 == 0 {
					w.leases.next()
				}
				ctx := as(t.Context(), name)
				if n%3 == 0 {
					if _, err := db.Exec(ctx, "SELECT become($1)", name); err != nil {
						t.Error(err)
					}
				}
				if got := visible(ctx, t, db); got != name {
					t.Errorf("%q sees %q", name, got)
				}
			}
		})
	}
	wg.Wait()
}

func TestSettingsThatAreRefused(t *testing.T) {
	w, db := newIdentity(t)
	ctx := t.Context()
	for name, s := range map[string]dbconn.Settings{
		"not declared": {"app.other": "x"}, "a server's": {"row_security": "off"}, "SQL": {"app.current_user_id', 'x', true); --": "x"}, "a NUL": {"app.current_user_id": "a\x00b"},
	} {
		bad := dbconn.WithSettings(ctx, s)
		_, errExec := db.Exec(bad, "SELECT 1")
		_, errQuery := db.Query(bad, "SELECT 1")
		_, errBegin := db.Begin(bad)
		_, errAcquire := db.Acquire(bad)
		_, errCopy := db.CopyFrom(bad, pgx.Identifier{"entries"}, []string{"worker"}, pgx.CopyFromRows(nil))
		errBatch := db.SendBatch(bad, &pgx.Batch{}).Close()
		errRow := db.QueryRow(bad, "SELECT 1").Scan(new(int))
		for i, err := range []error{errExec, errQuery, errBegin, errAcquire, errCopy, errBatch, errRow} {
			if !errors.Is(err, dbconn.ErrSettings) {
				t.Errorf("%s, %d: %v", name, i, err)
			}
		}
	}
	if _, err := db.Acquire(as(ctx, "alice")); !errors.Is(err, dbconn.ErrSettings) {
		t.Errorf("a bare connection: %v", err)
	}
	batch := &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{})
	if err := db.SendBatch(as(ctx, "alice"), batch).Close(); !errors.Is(err, dbconn.ErrSettings) {
		t.Errorf("a transaction in a transaction: %v", err)
	}
	// A pool that knows no settings takes none.
	w.leases.next()
	plain := open(t, w.config())
	if _, err := plain.Exec(as(ctx, "alice"), "SELECT 1"); !errors.Is(err, dbconn.ErrSettings) {
		t.Errorf("%v", err)
	}
	// A value is a value, whatever stands in it.
	var got string
	odd := `o'brien"; DROP TABLE pay; -- \ ` + "\u202e"
	if err := db.QueryRow(as(ctx, odd), "SELECT current_setting('app.current_user_id')").Scan(&got); err != nil || got != odd {
		t.Errorf("%q, %v", got, err)
	}
}

// Through database/sql the settings hold in transactions, and nowhere else.
func TestSettingsThroughDatabaseSQL(t *testing.T) {
	_, db := newIdentity(t)
	std := db.SQL()
	defer std.Close()
	ctx := t.Context()
	tx, err := std.BeginTx(as(ctx, "alice"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var owner string
	if err := tx.QueryRowContext(as(ctx, "alice"), "SELECT string_agg(owner, ',') FROM pay").Scan(&owner); err != nil || owner != "alice" {
		t.Errorf("%q, %v", owner, err)
	}
	if _, err := tx.ExecContext(ctx, "SELECT become('alice')"); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	var n int
	if err := std.QueryRowContext(ctx, "SELECT count(*) FROM pay").Scan(&n); err != nil || n != 0 {
		t.Errorf("nobody sees %d rows, %v", n, err)
	}
	_, errExec := std.ExecContext(as(ctx, "alice"), "SELECT 1")
	_, errPrepare := std.PrepareContext(as(ctx, "alice"), "SELECT 1")
	errQuery := std.QueryRowContext(as(ctx, "alice"), "SELECT 1").Scan(&n)
	_, errBegin := std.BeginTx(dbconn.WithSettings(ctx, dbconn.Settings{"app.other": "x"}), nil)
	for i, err := range []error{errExec, errPrepare, errQuery, errBegin} {
		if !errors.Is(err, dbconn.ErrSettings) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func ExampleWithSettings() {
	// The pool was opened with Config.Settings naming both.
	handle := func(ctx context.Context, db *dbconn.DB, userID, department string) (n int, err error) {
		ctx = dbconn.WithSettings(ctx, dbconn.Settings{"app.current_user_id": userID, "app.current_department_id": department})
		err = db.QueryRow(ctx, "SELECT count(*) FROM hr.employees").Scan(&n) // those that the policies let this user see
		return n, err
	}
	fmt.Printf("%T\n", handle)
	// Output: func(context.Context, *dbconn.DB, string, string) (int, error)
}
