package dbconn

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// This file is about the settings that say who asks.

// A preset is what a session has of a setting before anybody sets it.
type preset struct {
	name, target string // target: ALTER …, that RESET name follows
	object, kind string // that it is set for
}

// readSettings reads what sessions of the role start with.
func (c *catalog) readSettings(ctx context.Context, tx pgx.Tx) error {
	return each(ctx, tx, `SELECT split_part(v, '=', 1), CASE WHEN s.setrole <> 0 THEN format('ALTER ROLE %I', r.rolname) || CASE WHEN s.setdatabase <> 0 THEN format(' IN DATABASE %I', current_database()) ELSE '' END
				WHEN s.setdatabase <> 0 THEN format('ALTER DATABASE %I', current_database()) ELSE 'ALTER ROLE ALL' END,
			CASE WHEN s.setrole <> 0 THEN quote_ident(r.rolname) WHEN s.setdatabase <> 0 THEN quote_ident(current_database()) ELSE 'ALL' END, CASE WHEN s.setrole <> 0 OR s.setdatabase = 0 THEN 'role' ELSE 'database' END
		FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) v LEFT JOIN pg_roles r ON r.oid = s.setrole
		WHERE s.setrole IN (0, $1) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) AND v !~ '=$' ORDER BY 1, 2`, []any{c.role.oid}, func(row pgx.CollectableRow) error {
		var p preset
		err := row.Scan(&p.name, &p.target, &p.object, &p.kind)
		c.presets = append(c.presets, p)
		return err
	})
}

// settings looks for identities that a session has without anybody's doing.
func (f *findings) settings() {
	for _, p := range f.presets {
		for _, r := range f.protectedTables() {
			reads := func(k policy) bool {
				return slices.ContainsFunc(setting.FindAllStringSubmatch(k.shows+k.takes, -1), func(m []string) bool { return strings.EqualFold(m[1], p.name) })
			}
			if at := slices.IndexFunc(f.policies[r.oid], reads); at >= 0 && strings.Contains(p.name, ".") {
				f.add(f.role.oid, Finding{Code: "setting_default", Severity: Medium, Kind: p.kind, Object: p.object,
					Detail: "its sessions start with " + p.name + ", by which the policy " + f.policies[r.oid][at].name + " of " + r.name + " goes: who has not said who asks sees that one's rows",
					Proof:  "SELECT pg_catalog.current_setting('" + p.name + "')", Fix: p.target + " RESET " + p.name + ";"}, p.name)
				break
			}
		}
	}
}
