package pgproxy_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/agent/pgproxy"
	"github.com/tamshai/phoenix/internal/realpg"
)

// Sessions that keep nothing outlive their lease; those that keep something end as
// without Move.
func TestMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.Move = true })
	first := w.leases.current()

	plain := w.connect("application_name=mover default_query_exec_mode=exec")
	prepared := w.connect("") // as drivers do it, with names
	const sum = "SELECT $1::int + $2"
	if got := one[int](t, prepared, sum, 40, 2); got != 42 {
		t.Fatal(got)
	}
	tx := w.connect("default_query_exec_mode=exec")
	if _, err := tx.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	keeps := map[string]string{
		"SET statement_timeout = '1h'":                             "SHOW statement_timeout",
		"PREPARE mine AS SELECT 1":                                 "EXECUTE mine",
		"LISTEN news":                                              "SELECT 1",
		"SELECT pg_advisory_lock(42)":                              "SELECT pg_advisory_unlock(42)",
		"CREATE TEMPORARY TABLE mine (n int)":                      "SELECT count(*) FROM mine",
		"DECLARE mine CURSOR WITH HOLD FOR SELECT 1":               "FETCH mine",
		"SET ROLE app":                                             "SELECT current_user",
		"SELECT set_config('statement_timeout', '2h', false), 1":   "SHOW statement_timeout",
		"SELECT pg_advisory_lock_shared(43)":                       "SELECT 1",
		"DECLARE other SCROLL CURSOR WITH HOLD FOR SELECT 1, 2, 3": "FETCH other",
	}
	type keeper struct {
		does, then string
		run        func(string) error
	}
	var keepers []keeper
	for does, then := range keeps {
		conn := w.connect("")
		k := keeper{does, then, func(sql string) error {
			_, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
			return err
		}}
		if err := k.run(does); err != nil {
			t.Fatalf("%s: %v", does, err)
		}
		keepers = append(keepers, k)
	}

	second := w.leases.next()
	w.events.await(t, "database.rotation", auditlog.Success, 1)
	eventually(t, "all sessions but the one in a transaction are drained or moved", func() bool {
		s := w.Stats()
		return s.Moved == 2 && s.Drained == uint64(len(keepers))
	})
	for _, k := range keepers {
		if err := k.run(k.then); !ended(err) {
			t.Errorf("after %s: %v", k.does, err)
		}
	}
	if user := one[string](t, plain, "SELECT session_user::text"); user != second.Username() {
		t.Errorf("the session goes on as %s, want %s", user, second.Username())
	}
	if got := one[int](t, prepared, sum, 20, 3); got != 23 {
		t.Errorf("a prepared statement says %d", got)
	}
	if name := one[string](t, plain, "SHOW application_name"); name != "mover" {
		t.Errorf("the session is called %s", name)
	}
	if told := plain.PgConn().ParameterStatus("session_authorization"); told != second.Username() {
		t.Errorf("the client was told of %s", told)
	}
	// A cancel request finds the new connection.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slept := make(chan error, 1)
	go func() {
		_, err := plain.PgConn().Exec(t.Context(), "SELECT pg_sleep(60)").ReadAll()
		slept <- err
	}()
	eventually(t, "the statement runs", func() bool { return w.running("pg_sleep(60)") == 1 })
	if err := plain.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-slept; code(err) != "57014" {
		t.Errorf("a cancelled statement: %v", err)
	}

	// The one in a transaction moves after it.
	if user := one[string](t, tx, "SELECT session_user::text"); user != first.Username() {
		t.Errorf("in the transaction the user is %s", user)
	}
	if _, err := tx.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session moves after the transaction", func() bool {
		return one[string](t, tx, "SELECT session_user::text") == second.Username()
	})
	if user := w.leases.awaitRevoked(); user != first.Username() {
		t.Errorf("%s was taken back", user)
	}
	// The deadline of the old lease is nothing to those that have moved.
	eventually(t, "sessions are on the newest lease", func() bool { return w.Stats().Draining == 0 })
	third := w.leases.next()
	w.events.await(t, "database.rotation", auditlog.Success, 2)
	eventually(t, "all have moved again", func() bool { return w.Stats().Moved == 6 })
	if user := one[string](t, plain, "SELECT session_user::text"); user != third.Username() {
		t.Errorf("the session goes on as %s, want %s", user, third.Username())
	}
	if s := w.Stats(); s.Cut != 0 {
		t.Errorf("%d sessions were cut off", s.Cut)
	}
}

// A move that cannot be is an end like any other.
func TestMoveFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.Move = true })
	conn := w.connect("default_query_exec_mode=exec")
	do := func(sql string) error {
		_, err := conn.Exec(t.Context(), sql)
		return err
	}
	if err := do("BEGIN"); err != nil {
		t.Fatal(err)
	}
	w.pg.Exec(t, "postgres", "CREATE TABLE gone (n int)", "GRANT SELECT ON gone TO app")
	stale := w.connect("")
	if _, err := stale.Exec(t.Context(), "SELECT n FROM gone WHERE n = $1", 1); err != nil {
		t.Fatal(err)
	}
	w.pg.Exec(t, "postgres", "DROP TABLE gone")
	old := w.leases.current().Username()
	w.leases.next()
	w.events.await(t, "database.rotation", auditlog.Success, 1)
	eventually(t, "a session whose statement cannot be prepared again ends", func() bool { return w.Stats().Drained == 1 })
	if _, err := stale.Exec(t.Context(), "SELECT 1"); !ended(err) {
		t.Errorf("a session whose statement cannot be prepared again: %v", err)
	}
	w.pg.Exec(t, "postgres", "ALTER DATABASE postgres CONNECTION LIMIT 0")
	if err := do("COMMIT"); err != nil {
		t.Fatal(err)
	}
	var err error
	eventually(t, "the session ends", func() bool { err = do("SELECT 1"); return err != nil }) // one may be ahead of the move
	if !ended(err) {
		t.Errorf("a session for which there is no other connection: %v", err)
	}
	if user := w.leases.awaitRevoked(); user != old {
		t.Errorf("%s was taken back", user)
	}
	if s := w.Stats(); s.Moved != 0 || s.Drained != 2 {
		t.Errorf("the figures are %+v", s)
	}
}

// 32 workers whose program never sends anything twice see nothing of rotations.
func TestMoveUnderLoad(t *testing.T) {
	t.Parallel()
	const rotations = 4
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.Move = true })
	var pools []*pgxpool.Pool
	for _, mode := range []string{"exec", "describe_exec", "simple_protocol", "cache_statement", "cache_describe"} {
		pool, err := pgxpool.New(t.Context(), w.url()+"&pool_max_conns=4&default_query_exec_mode="+mode)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		pools = append(pools, pool)
	}
	var stop atomic.Bool
	var done, failed atomic.Int64
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				note := strings.Repeat("x", n%3000)
				if _, err := pools[worker%len(pools)].Exec(t.Context(), "INSERT INTO entries VALUES ($1, $2, $3)", worker, n, note); err != nil {
					failed.Add(1)
					t.Errorf("worker %d: %v", worker, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for n := range rotations {
		old := w.leases.current().Username()
		w.leases.next()
		w.events.await(t, "database.rotation", auditlog.Success, n+1)
		if user := w.leases.awaitRevoked(); user != old {
			t.Errorf("%s was taken back, want %s", user, old)
		}
		before := done.Load()
		eventually(t, "work goes on", func() bool { return done.Load() > before+100 || failed.Load() > 0 })
	}
	stop.Store(true)
	wg.Wait()
	admin := w.pg.Connect(t, "postgres")
	defer admin.Close(context.Background())
	if rows := one[int64](t, admin, "SELECT count(DISTINCT (worker, n)) FROM entries"); rows != done.Load() || rows != one[int64](t, admin, "SELECT count(*) FROM entries") {
		t.Errorf("%d writes made %d rows", done.Load(), rows)
	}
	if s := w.Stats(); s.Cut != 0 || s.Drained != 0 || s.Moved == 0 {
		t.Errorf("the figures are %+v", s)
	}
	t.Logf("%d statements, none failed; %d sessions moved", done.Load(), w.Stats().Moved)
}

// Leases that follow one another faster than sessions can move, and an end in the
// middle of that: nothing hangs, and no statement fails before the end.
func TestMoveInAHurry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.Move = true })
	pool, err := pgxpool.New(t.Context(), w.url()+"&pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var ending atomic.Bool
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				_, err := pool.Exec(t.Context(), "INSERT INTO entries VALUES ($1, $2, '')", worker, n)
				if ending.Load() {
					return
				}
				if err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
			}
		})
	}
	for range 12 {
		w.leases.next()
	}
	eventually(t, "sessions are on the last lease", func() bool {
		s := w.Stats()
		return s.User == w.leases.current().Username() && s.Draining == 0
	})
	w.leases.next()
	eventually(t, "sessions move again", func() bool { return w.Stats().User == w.leases.current().Username() })
	ending.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begin := time.Now()
	if err := w.Close(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("close: %v, %v", err, ctx.Err())
	}
	t.Logf("closed in %s: %+v", time.Since(begin), w.Stats())
	wg.Wait()
}

// Sessions that are cut off while they move leave nothing behind that waits.
func TestMoveCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realpg.Config{}, func(c *pgproxy.Config) { c.Move, c.DrainTimeout = true, 10*time.Millisecond })
	pool, err := pgxpool.New(t.Context(), w.url()+"&pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for !stop.Load() {
				if _, err := pool.Exec(t.Context(), "SELECT pg_sleep(0.001)"); err != nil && !ended(err) && code(err) != "08006" {
					t.Errorf("a session that was cut off: %v", err)
					return
				}
			}
		})
	}
	for n := range 10 {
		w.leases.next()
		w.events.await(t, "database.drained", "", n+1)
	}
	stop.Store(true)
	wg.Wait()
	pool.Close()
	eventually(t, "every session has ended", func() bool { return w.Stats().Active == 0 })
	t.Logf("%+v", w.Stats())
}
