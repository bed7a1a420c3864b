package dbconn

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Query runs a statement that returns rows, which must be closed or read to
// the end. See pgx.Conn.Query.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	r := &rows{db: db, ctx: ctx, sql: sql, args: args, left: db.attempts()}
	if err := r.send(); err != nil {
		r.Rows, r.err = noRows{err: err}, err
		return r, err
	}
	return r, nil
}

// QueryRow runs a statement that returns at most one row. Errors come with its
// Scan. See pgx.Conn.QueryRow.
func (db *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	r, _ := db.Query(ctx, sql, args...)
	return row{r}
}

// rows give back the connection when they are closed. Until the first of them
// has arrived, the statement may be sent again where verdict allows it.
type rows struct {
	pgx.Rows
	db   *DB
	ctx  context.Context
	sql  string
	args []any
	left int // attempts

	end     func(err error) (again bool, _ error) // for the attempt under way; nil after it
	started bool
	err     error // besides that of Rows
}

// send makes one attempt, or more if the statement cannot even be sent.
func (r *rows) send() error {
	for {
		r.left--
		err := r.try()
		if err == nil || r.end == nil {
			return err
		}
		again, err := r.end(err)
		r.end = nil
		if !again || r.left == 0 {
			return err
		}
	}
}

// try sends the statement, inside a transaction if the context has settings.
func (r *rows) try() (err error) {
	s, err := r.db.setup(r.ctx)
	if err != nil {
		return err
	}
	if s.sql != "" {
		tx, err := r.db.BeginTx(r.ctx, pgx.TxOptions{})
		if err != nil {
			return err
		}
		r.end = func(err error) (bool, error) { return false, finish(r.ctx, tx, err) }
		r.Rows, err = tx.Query(r.ctx, r.sql, r.args...)
		return err
	}
	conn, g, err := r.db.acquire(r.ctx)
	if err != nil {
		return err
	}
	r.end = func(err error) (bool, error) {
		again := r.db.verdict(r.ctx, g, conn.Conn(), err) && repeatable(r.sql, err)
		conn.Release()
		return again, err
	}
	r.Rows, err = conn.Query(r.ctx, r.sql, r.args...)
	return err
}

func (r *rows) Next() bool {
	for {
		if r.Rows.Next() {
			r.started = true
			return true
		}
		if !r.settle() {
			return false
		}
		if r.err = r.send(); r.err != nil {
			r.Rows = noRows{err: r.err}
			return false
		}
	}
}

// settle closes the rows and ends the attempt. It reports whether to make
// another one.
func (r *rows) settle() (again bool) {
	r.Rows.Close()
	if r.end == nil {
		return false
	}
	again, r.err = r.end(r.Rows.Err())
	r.end = nil
	return again && !r.started && r.left > 0
}

func (r *rows) Close() { r.settle() }

func (r *rows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

func (r *rows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.settle() // pgx closes the rows then
	}
	return err
}

func (r *rows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	if err != nil {
		r.settle()
	}
	return values, err
}

type row struct{ pgx.Rows }

func (r row) Scan(dest ...any) error {
	defer r.Close()
	for _, d := range dest {
		if _, ok := d.(*pgtype.DriverBytes); ok {
			return errDriverBytes
		}
	}
	if !r.Next() {
		if err := r.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.Rows.Scan(dest...); err != nil {
		return err
	}
	r.Close()
	return r.Err()
}

var errDriverBytes = errors.New("dbconn: QueryRow cannot scan into *pgtype.DriverBytes, whose memory is gone by then; use Query")

// noRows stand for a statement that was never sent.
type noRows struct{ err error }

func (noRows) Close()                                       {}
func (n noRows) Err() error                                 { return n.err }
func (noRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (noRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (noRows) Next() bool                                   { return false }
func (n noRows) Scan(...any) error                          { return n.err }
func (n noRows) Values() ([]any, error)                     { return nil, n.err }
func (noRows) RawValues() [][]byte                          { return nil }
func (noRows) Conn() *pgx.Conn                              { return nil }
func (noRows) TypeMap() *pgtype.Map                         { return nil }

// SendBatch sends several statements at once; close its results. With settings
// in the context they run in one transaction, which Close commits; the batch
// must not begin one itself. See pgx.Conn.SendBatch.
func (db *DB) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	s, err := db.setup(ctx)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	if s.sql != "" {
		if len(b.QueuedQueries) > 0 && firstWord(b.QueuedQueries[0].SQL) == "begin" {
			return pgx.FailedBatchResults(b, db.settingsError("call Begin, and SendBatch on its transaction", "the batch begins a transaction of its own"))
		}
		tx, err := db.BeginTx(ctx, pgx.TxOptions{})
		if err != nil {
			return pgx.FailedBatchResults(b, err)
		}
		return &batchResults{BatchResults: tx.SendBatch(ctx, b), end: func(err error) error { return finish(ctx, tx, err) }}
	}
	conn, g, err := db.acquire(ctx)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	results := &batchResults{BatchResults: conn.SendBatch(ctx, b)}
	if inner := results.BatchResults.Tx(); inner != nil {
		// The transaction outlives the batch, and gives the connection back.
		results.tx = &tx{Tx: inner, release: sync.OnceFunc(conn.Release)}
		results.end = func(err error) error { return err }
		return results
	}
	results.end = func(err error) error {
		db.verdict(ctx, g, conn.Conn(), err) // for the connection's sake: some of the batch may have run
		conn.Release()
		return err
	}
	return results
}

type batchResults struct {
	pgx.BatchResults
	tx  *tx
	end func(error) error // nil after Close
	err error
}

func (r *batchResults) Tx() pgx.Tx {
	if r.tx == nil {
		return nil
	}
	return r.tx
}

func (r *batchResults) Close() error {
	if r.end == nil {
		return r.err
	}
	r.err = r.end(r.BatchResults.Close())
	r.end = nil
	return r.err
}
