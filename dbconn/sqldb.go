package dbconn

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// SQL returns db for database/sql. It keeps no idle connections of its own, so
// leave SetMaxIdleConns alone: db keeps them, and replaces them; what database/sql
// kept idle would hold up each rotation until Config.DrainTimeout. Close both, the
// *sql.DB first.
//
// With settings in the context (see [WithSettings]) a transaction carries them,
// and anything outside of one is refused. database/sql itself repeats what fails
// with driver.ErrBadConn, which pgx returns when nothing was sent.
func (db *DB) SQL() *sql.DB {
	std := sql.OpenDB(connector{db})
	std.SetMaxIdleConns(0)
	return std
}

type connector struct{ db *DB }

func (connector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, g, err := acquire(ctx, c.db, func(ctx context.Context, pool *pgxpool.Pool) (driver.Conn, error) {
		return stdlib.GetPoolConnector(pool).Connect(ctx)
	})
	if err != nil {
		return nil, err
	}
	return &sqlConn{Conn: conn.(*stdlib.Conn), db: c.db, g: g}, nil
}

// sqlConn leaves database/sql when its generation is over.
type sqlConn struct {
	*stdlib.Conn
	db *DB
	g  *generation
}

// IsValid implements driver.Validator.
func (c *sqlConn) IsValid() bool { return c.g == c.db.current.Load() }

// ResetSession implements driver.SessionResetter.
func (c *sqlConn) ResetSession(ctx context.Context) error {
	if !c.IsValid() {
		return driver.ErrBadConn
	}
	return c.Conn.ResetSession(ctx)
}

// BeginTx implements driver.ConnBeginTx.
func (c *sqlConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	s, err := c.db.setup(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := c.Conn.BeginTx(ctx, opts)
	if err != nil || s.sql == "" {
		return tx, err
	}
	if _, err := c.Conn.Conn().Exec(ctx, s.sql, s.args...); err != nil {
		_ = tx.Rollback() // the connection is discarded if it fails
		return nil, err
	}
	return tx, nil
}

// outside refuses settings that no transaction would carry.
func (c *sqlConn) outside(ctx context.Context) error {
	s, err := c.db.setup(ctx)
	if err == nil && s.sql != "" && c.Conn.Conn().PgConn().TxStatus() == 'I' {
		err = c.db.settingsError("use BeginTx, which sets them for the transaction", "a statement by itself cannot carry them through database/sql")
	}
	return err
}

// ExecContext implements driver.ExecerContext.
func (c *sqlConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.outside(ctx); err != nil {
		return nil, err
	}
	return c.Conn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c *sqlConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.outside(ctx); err != nil {
		return nil, err
	}
	return c.Conn.QueryContext(ctx, query, args)
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *sqlConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.outside(ctx); err != nil {
		return nil, err
	}
	return c.Conn.PrepareContext(ctx, query)
}
