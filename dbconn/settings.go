package dbconn

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Settings are values of identity settings by name: {"app.current_user_id": "42"}.
type Settings map[string]string

type settingsKey struct{}

// WithSettings returns a context in which everything that a [DB] does is done
// for the caller that the settings describe. The policies of the database read
// them with current_setting. WithSettings copies the map; of two calls the last
// one counts alone.
//
// The names must be in [Config.Settings], else nothing is done. Those of
// Config.Settings that are missing here are set to "", so that nobody inherits
// them. The values are local to a transaction: [DB.Begin] and [DB.BeginTx] set
// them right after BEGIN, and a statement by itself gets a transaction around
// it. [DB.Acquire] refuses such a context, because its connection has no
// transaction yet.
//
// Whatever a statement sets for its whole session is undone when the connection
// goes back to the pool, before anybody else gets it.
func WithSettings(ctx context.Context, s Settings) context.Context {
	return context.WithValue(ctx, settingsKey{}, maps.Clone(s))
}

// A setup is the statement that applies a context's settings; the zero value
// does nothing.
type setup struct {
	sql  string
	args []any
}

// setup reads the context's settings and checks them.
func (db *DB) setup(ctx context.Context) (setup, error) {
	given, asked := ctx.Value(settingsKey{}).(Settings)
	for name, value := range given {
		if !slices.Contains(db.cfg.Settings, name) {
			return setup{}, db.settingsError("add it to Config.Settings", "%q is not one of the pool's settings %q", name, db.cfg.Settings)
		}
		if strings.ContainsRune(value, 0) {
			return setup{}, db.settingsError("refuse such a caller", "the value of %q holds a NUL", name)
		}
	}
	if !asked || len(db.cfg.Settings) == 0 {
		return setup{}, nil
	}
	s := setup{args: make([]any, 0, 2*len(db.cfg.Settings))}
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, name := range db.cfg.Settings {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "pg_catalog.set_config($%d, $%d, true)", 2*i+1, 2*i+2)
		s.args = append(s.args, name, given[name])
	}
	s.sql = b.String()
	return s, nil
}

func (db *DB) settingsError(remedy, format string, args ...any) error {
	return &Error{Op: "set the caller's identity on", Where: db.where, Kind: ErrSettings, Err: fmt.Errorf(format, args...), Remedy: remedy}
}

// begin starts a transaction and applies the settings in one round trip.
func (s setup) begin(ctx context.Context, conn *pgx.Conn, opts pgx.TxOptions) (pgx.Tx, error) {
	if s.sql == "" {
		return conn.BeginTx(ctx, opts)
	}
	batch := &pgx.Batch{}
	batch.BeginTx(opts)
	batch.Queue(s.sql, s.args...)
	results := conn.SendBatch(ctx, batch)
	tx := results.Tx()
	if err := results.Close(); err != nil {
		_ = tx.Rollback(ctx) // it may have begun
		return nil, err
	}
	return tx, nil
}
