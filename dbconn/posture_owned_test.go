package dbconn_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/dbconn"
)

// ownHoles are ways around that go over what the role owns or may change, and that
// others' rights then run through.
var ownHoles = []hole{
	{name: "rule on an invoker view", setup: []string{`CREATE VIEW hr.form WITH (security_invoker = true) AS SELECT 0 AS id`,
		`CREATE RULE form AS ON INSERT TO hr.form DO INSTEAD UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id`, `GRANT INSERT ON hr.form TO me`},
		steal: []string{`INSERT INTO hr.form VALUES (2)`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"rule hr.form"}, after: "rule hr.form"},
	{name: "rule on a view of views", setup: []string{`CREATE VIEW hr.all_of_them AS TABLE hr.salaries`, `CREATE TABLE hr.inbox (id int, tenant text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.inbox USING (tenant = current_setting('app.tenant', true))`,
		`CREATE RULE r AS ON INSERT TO hr.inbox DO ALSO UPDATE hr.all_of_them SET amount = 0 WHERE id = NEW.id`, `GRANT INSERT ON hr.inbox TO me`},
		steal: []string{`INSERT INTO hr.inbox VALUES (2, 'acme')`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"rule hr.inbox"}, after: "rule hr.inbox"},

	{name: "event trigger", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE TABLE mine.loot (tenant text)`, `ALTER TABLE mine.loot OWNER TO me`, `ALTER TABLE mine.loot ENABLE ROW LEVEL SECURITY`,
		`CREATE FUNCTION mine.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`, `CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION mine.watch()`, `ALTER FUNCTION mine.watch() OWNER TO me`},
		steal: []string{`CREATE OR REPLACE FUNCTION mine.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO mine.loot SELECT tenant FROM hr.salaries; END'`,
			`/*admin*/ CREATE TABLE hr.innocent (n int)`, `SELECT string_agg(tenant, ' ') FROM mine.loot`}, undo: []string{`DROP TABLE hr.innocent`},
		found: []string{"function_owner mine.watch()", "schema_create mine", "table_owner mine.loot"}},
	{name: "operator of a policy", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE FUNCTION mine.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT $1 = $2'`,
		`CREATE OPERATOR hr.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.same)`, `DROP POLICY own ON hr.salaries`,
		`CREATE POLICY own ON hr.salaries USING (tenant OPERATOR(hr.===) current_setting('app.tenant', true))`, `ALTER FUNCTION mine.same(text, text) OWNER TO me`},
		steal: []string{`BEGIN`, `CREATE OR REPLACE FUNCTION mine.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true'`, all}, found: []string{"function_owner mine.same(text, text)", "schema_create mine"}},
	{name: "function of a function", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE FUNCTION mine.within() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$`,
		`CREATE FUNCTION hr.tenant() RETURNS text BEGIN ATOMIC SELECT mine.within(); END`, `DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant = hr.tenant())`, `ALTER FUNCTION mine.within() OWNER TO me`},
		steal: []string{`BEGIN`, `CREATE OR REPLACE FUNCTION mine.within() RETURNS text LANGUAGE sql AS $$ SELECT 'globex' $$`, all}, found: []string{"function_owner mine.within()", "schema_create mine"}},
	{name: "function of a domain", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE TABLE mine.loot (value text)`, `ALTER TABLE mine.loot OWNER TO me`, `ALTER TABLE mine.loot ENABLE ROW LEVEL SECURITY`,
		`CREATE FUNCTION mine.ok(text) RETURNS bool LANGUAGE sql AS 'SELECT true'`, `CREATE DOMAIN hr.tenant AS text CHECK (mine.ok(VALUE))`,
		`CREATE TABLE hr.tenants (tenant hr.tenant)`, `ALTER TABLE hr.tenants ENABLE ROW LEVEL SECURITY`, `ALTER FUNCTION mine.ok(text) OWNER TO me`},
		steal: []string{`CREATE OR REPLACE FUNCTION mine.ok(text) RETURNS bool LANGUAGE sql AS 'INSERT INTO mine.loot VALUES ($1) RETURNING true'`,
			`/*admin*/ INSERT INTO hr.tenants VALUES ('globex')`, `SELECT string_agg(value, ' ') FROM mine.loot`}, found: []string{"function_owner mine.ok(text)", "schema_create mine", "table_owner mine.loot"}},
	{name: "function of an index", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE TABLE mine.loot (value text)`, `ALTER TABLE mine.loot OWNER TO me`, `ALTER TABLE mine.loot ENABLE ROW LEVEL SECURITY`,
		`CREATE FUNCTION mine.key(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'`,
		`CREATE INDEX ON hr.salaries (mine.key(tenant))`, `ALTER FUNCTION mine.key(text) OWNER TO me`},
		steal: []string{`CREATE OR REPLACE FUNCTION mine.key(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE format(''INSERT INTO mine.loot VALUES (%L)'', $1); RETURN $1; END'`,
			`/*admin*/ INSERT INTO hr.salaries VALUES (8, 'globex', 8)`, `SELECT string_agg(value, ' ') FROM mine.loot`}, found: []string{"function_owner mine.key(text)", "schema_create mine", "table_owner mine.loot"}},

	{name: "domain owner", setup: []string{`CREATE DOMAIN hr.tenant AS text`, `CREATE TABLE hr.tenants (tenant hr.tenant)`, `INSERT INTO hr.tenants VALUES ('globex')`, `ALTER TABLE hr.tenants ENABLE ROW LEVEL SECURITY`,
		`CREATE SCHEMA mine AUTHORIZATION me`, `ALTER DOMAIN hr.tenant OWNER TO me`},
		steal: []string{`CREATE FUNCTION mine.tell(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'told: %', $1; END $$`,
			`/*error*/ ALTER DOMAIN hr.tenant ADD CHECK (mine.tell(VALUE))`}, found: []string{"domain_owner hr.tenant", "schema_create mine"}},

	{name: "view of a policy", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE VIEW mine.allowed AS SELECT current_setting('app.tenant', true) AS tenant`, `ALTER VIEW mine.allowed OWNER TO me`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant IN (SELECT tenant FROM mine.allowed))`},
		steal: []string{`BEGIN`, `CREATE OR REPLACE VIEW mine.allowed AS SELECT 'globex'::text AS tenant`, all}, found: []string{"policy_source mine.allowed", "schema_create mine"}},
	{name: "members write themselves in", setup: []string{`CREATE TABLE hr.members (who name, tenant text)`, `INSERT INTO hr.members VALUES ('me ', 'acme')`, `ALTER TABLE hr.members ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.members USING (who = current_user)`, `GRANT SELECT, INSERT ON hr.members TO me`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant IN (SELECT tenant FROM hr.members WHERE who = current_user))`},
		steal: []string{`BEGIN`, `INSERT INTO hr.members VALUES (current_user, 'globex')`, all}, found: []string{"policy_source hr.members"}},

	{name: "default privileges", setup: []string{`ALTER DEFAULT PRIVILEGES FOR ROLE keeper IN SCHEMA hr GRANT SELECT, TRUNCATE ON TABLES TO me`},
		steal: []string{`/*admin*/ SET ROLE keeper; CREATE TABLE hr.tomorrow AS SELECT 'globex'::text AS tenant; RESET ROLE`, `SELECT tenant FROM hr.tomorrow`}, undo: []string{`DROP TABLE hr.tomorrow`},
		found: []string{"default_privileges FOR ROLE keeper IN SCHEMA hr"}},
	{name: "default privileges to a group", setup: []string{`CREATE ROLE staff`, `GRANT staff TO me`, `ALTER DEFAULT PRIVILEGES FOR ROLE keeper GRANT ALL ON TABLES TO staff`},
		steal: []string{`/*admin*/ SET ROLE keeper; CREATE TABLE hr.tomorrow AS SELECT 'globex'::text AS tenant; RESET ROLE`, `SELECT tenant FROM hr.tomorrow`}, undo: []string{`DROP TABLE hr.tomorrow`},
		found: []string{"default_privileges FOR ROLE keeper"}},
	{name: "others' statements", setup: []string{`GRANT pg_monitor TO me`},
		steal: []string{`/*admin*/ SELECT amount FROM hr.salaries WHERE tenant = 'globex'`, `SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE usename = 'postgres'`}, found: []string{"activity pg_read_all_stats"}},
	{name: "owner of a copy", setup: []string{seed, `CREATE MATERIALIZED VIEW hr.m AS SELECT * FROM hr.salaries`, `ALTER MATERIALIZED VIEW hr.m OWNER TO me`, `REVOKE ALL ON hr.m FROM me`},
		steal: []string{`GRANT SELECT ON hr.m TO me`, `SELECT string_agg(tenant, ' ') FROM hr.m`}, undo: []string{`REVOKE ALL ON hr.m FROM me`}, found: []string{"materialized_view hr.m"}},
	{name: "definer who reads files", setup: []string{`CREATE ROLE filer`, `GRANT pg_read_server_files TO filer`, `GRANT TEMPORARY ON DATABASE db TO filer`, `GRANT CREATE, USAGE ON SCHEMA hr TO filer`, `/*admin*/ INSERT INTO hr.salaries VALUES (2, 'globex', 1)`,
		`COPY hr.salaries TO '$sockets/$database.copy'`,
		`CREATE FUNCTION hr.load(file text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ DECLARE said text;
			BEGIN CREATE TEMP TABLE lines (line text); EXECUTE format('COPY pg_temp.lines FROM %L (DELIMITER ''|'')', file); SELECT string_agg(line, ' ') INTO said FROM pg_temp.lines; DROP TABLE pg_temp.lines; RETURN said; END $$`,
		`ALTER FUNCTION hr.load(text) OWNER TO filer`},
		steal: []string{`SELECT hr.load('$sockets/$database.copy')`}, found: []string{"definer hr.load(text)"}},

	{name: "definer behind an operator", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.look(text, text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT string_agg(tenant, $2) FROM hr.salaries $$`,
		`CREATE OPERATOR hr.<?> (LEFTARG = text, RIGHTARG = text, FUNCTION = hidden.look)`},
		steal: []string{`SELECT ''::text OPERATOR(hr.<?>) ' '::text`}, found: []string{"definer hidden.look(text, text)"}},
	{name: "definer behind a cast", setup: []string{`CREATE SCHEMA hidden`, `CREATE TYPE hr.wish AS (n int)`, `CREATE FUNCTION hidden.look(hr.wish) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`,
		`CREATE CAST (hr.wish AS text) WITH FUNCTION hidden.look(hr.wish)`},
		steal: []string{`SELECT CAST(ROW(1)::hr.wish AS text)`}, found: []string{"definer hidden.look(hr.wish)"}},
	{name: "large object of everybody", setup: []string{`SELECT lo_from_bytea(4721, 'globex')`, `GRANT SELECT ON LARGE OBJECT 4721 TO PUBLIC`},
		steal: []string{`SELECT convert_from(lo_get(4721), 'UTF8')`}, found: []string{"large_object 4721"}},
	{name: "server owner", setup: append(slices.Clip(remote), `ALTER SERVER here OWNER TO me`, `CREATE USER MAPPING FOR keeper SERVER here OPTIONS (user 'bypasser_login', password 'x')`, `GRANT SELECT ON hr.far TO keeper`,
		`GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO me`),
		steal: []string{`/*admin*/ SET ROLE keeper; SELECT count(*) FROM hr.far; RESET ROLE`, `ALTER SERVER here OPTIONS (SET dbname 'postgres')`}, check: `SELECT 'dbname=postgres' = ANY (srvoptions) FROM pg_foreign_server`,
		undo: []string{`ALTER SERVER here OPTIONS (SET dbname '$database')`}, found: []string{"server_owner here"}},

	{name: "policy function's table", setup: []string{`GRANT TEMPORARY ON DATABASE db TO me`, `CREATE TABLE hr.members (who name, tenant text)`, `SET search_path = hr`,
		`CREATE FUNCTION hr.tenant() RETURNS text LANGUAGE sql STABLE AS 'SELECT tenant FROM members WHERE who = current_user'`, `RESET search_path`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant = hr.tenant())`},
		steal: []string{`CREATE TEMP TABLE members AS SELECT current_user AS who, 'globex'::text AS tenant`, all}, found: []string{"policy_search_path hr.tenant()"}},
	{name: "policy function's function", setup: []string{`CREATE SCHEMA mine AUTHORIZATION me`, `CREATE FUNCTION hr.tenant() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN current_setting('app.tenant', true); END $$`,
		`CREATE FUNCTION hr.tenant_of(text) RETURNS bool BEGIN ATOMIC SELECT $1 = hr.tenant(); END`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (hr.tenant_of(tenant))`},
		steal: []string{`CREATE FUNCTION mine.current_setting(text, bool) RETURNS text LANGUAGE sql AS $$ SELECT 'globex' $$`, `SET search_path = mine, pg_catalog`, all}, found: []string{"policy_search_path hr.tenant()", "schema_create mine"}},
	{name: "definer of a definer", setup: []string{`CREATE ROLE porter`, `GRANT USAGE ON SCHEMA hr TO porter`, `CREATE FUNCTION hr.vault() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`,
		`REVOKE ALL ON FUNCTION hr.vault() FROM PUBLIC`, `GRANT EXECUTE ON FUNCTION hr.vault() TO porter`,
		`CREATE FUNCTION hr.door() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN RETURN hr.vault(); END $$`, `ALTER FUNCTION hr.door() OWNER TO porter`},
		steal: []string{`SELECT hr.door()`}, found: []string{"definer hr.door()"}},
	{name: "definer of a view", setup: []string{`CREATE ROLE porter_two`, `GRANT USAGE ON SCHEMA hr TO porter_two`, `CREATE VIEW hr.everything AS TABLE hr.salaries`, `GRANT SELECT ON hr.everything TO porter_two`,
		`CREATE FUNCTION hr.door() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.everything $$`, `ALTER FUNCTION hr.door() OWNER TO porter_two`},
		steal: []string{`SELECT hr.door()`}, found: []string{"definer hr.door()"}},
}

func TestPostureOwned(t *testing.T) {
	l := newLab(t, 15)
	testHoles(t, l, append(ownHoles, reachHoles...))
	testClean(t, l, append(ownClean, reachClean...))
}

// ownClean look like the above, and are none.
var ownClean = []hole{
	{name: "harmless owner", setup: []string{
		`CREATE SCHEMA mine`, `GRANT USAGE ON SCHEMA mine TO me`,
		// Its functions are its own affair.
		`CREATE FUNCTION mine.f(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'`, `ALTER FUNCTION mine.f(text) OWNER TO me`,
		`CREATE FUNCTION mine.g() RETURNS text BEGIN ATOMIC SELECT mine.f('x'); END`, `ALTER FUNCTION mine.g() OWNER TO me`,
		// A domain that no table has.
		`CREATE DOMAIN mine.d AS text`, `ALTER DOMAIN mine.d OWNER TO me`,
		// What it owns itself, and what is for others.
		`SELECT lo_from_bytea(4722, 'mine')`, `ALTER LARGE OBJECT 4722 OWNER TO me`, `SELECT lo_from_bytea(4723, 'keeper''s')`, `GRANT SELECT ON LARGE OBJECT 4723 TO keeper`,
		`CREATE EXTENSION postgres_fdw`, `CREATE SERVER own FOREIGN DATA WRAPPER postgres_fdw`, `ALTER SERVER own OWNER TO me`, `CREATE USER MAPPING FOR bypasser SERVER own`, `DROP USER MAPPING FOR bypasser SERVER own`,
		`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.look(text, text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT string_agg(tenant, $2) FROM hr.salaries $$`,
		`CREATE OPERATOR hidden.<?> (LEFTARG = text, RIGHTARG = text, FUNCTION = hidden.look)`,
		// One that it writes, but whose own policy says what may stand in each column that counts.
		`CREATE TABLE hr.shifts (who name, tenant text, day int)`, `ALTER TABLE hr.shifts ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.shifts USING (who = current_user) WITH CHECK (who = current_user AND tenant = current_setting('app.tenant', true))`, `GRANT SELECT, INSERT, UPDATE, DELETE ON hr.shifts TO me`,
		`CREATE POLICY shifts ON hr.salaries USING (tenant IN (SELECT tenant FROM hr.shifts WHERE who = current_user))`,
		// One from which it can only take away.
		`CREATE TABLE hr.left (tenant text)`, `ALTER TABLE hr.left ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.left USING (tenant = current_setting('app.tenant', true))`, `GRANT DELETE ON hr.left TO me`, `GRANT SELECT ON hr.left TO me`,
		`CREATE POLICY gone ON hr.salaries USING (tenant IN (SELECT tenant FROM hr.left))`,
		// Policies call functions that look nothing up where the caller says.
		`GRANT TEMPORARY ON DATABASE db TO me`,
		`CREATE FUNCTION hr.plain() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant', true) $$`,
		`CREATE FUNCTION hr.pinned() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT current_setting('app.tenant', true) FROM pg_roles LIMIT 1 $$`,
		`CREATE FUNCTION hr.named() RETURNS text LANGUAGE plpgsql STABLE AS $$ DECLARE x text; BEGIN WITH one AS (SELECT 1) SELECT current_setting('app.tenant', true) INTO x FROM one, generate_series(1, 1) JOIN pg_catalog.pg_roles ON true LIMIT 1; -- FROM nothing
			IF x IS DISTINCT FROM x THEN RETURN NULL; END IF; RETURN x; END $$`,
		`CREATE TABLE hr.three (tenant text)`, `ALTER TABLE hr.three ENABLE ROW LEVEL SECURITY`, `CREATE POLICY p ON hr.three USING (tenant = hr.plain() AND tenant = hr.pinned() AND tenant = hr.named())`, `GRANT SELECT ON hr.three TO me`,
		// A definer who may not call what it names.
		`CREATE ROLE guard`, `CREATE FUNCTION hr.shut() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`, `REVOKE ALL ON FUNCTION hr.shut() FROM PUBLIC`,
		`CREATE FUNCTION hr.says() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT 'hr.shut' $$`, `ALTER FUNCTION hr.says() OWNER TO guard`,
		// A lookup that it can only read.
		`CREATE TABLE hr.members (who name, tenant text)`, `ALTER TABLE hr.members ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.members USING (who = current_user)`,
		`INSERT INTO hr.members VALUES ('me_harmless_owner', 'acme')`, `GRANT SELECT ON hr.members TO me`,
		`CREATE POLICY also ON hr.salaries USING (tenant IN (SELECT tenant FROM hr.members WHERE who = current_user))`,
		// Default privileges of others, and on what is no table.
		`ALTER DEFAULT PRIVILEGES FOR ROLE keeper IN SCHEMA hr GRANT SELECT ON TABLES TO bypasser`,
		`ALTER DEFAULT PRIVILEGES FOR ROLE keeper IN SCHEMA hr GRANT USAGE ON SEQUENCES TO me`,
		// Its rules act with the rights of an owner who meets policies.
		`CREATE ROLE poster`, `GRANT USAGE ON SCHEMA hr TO poster`, `GRANT SELECT, UPDATE ON hr.salaries TO poster`,
		`CREATE VIEW hr.form WITH (security_invoker = true) AS SELECT 0 AS id`, `CREATE RULE form AS ON INSERT TO hr.form DO INSTEAD UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id`,
		`ALTER VIEW hr.form OWNER TO poster`, `GRANT INSERT ON hr.form TO me`,
	}},
}

// A name cannot end the comment that a fix is, so that whoever runs fixes runs
// nothing of the owner's.
func TestPostureFixIsNoInjection(t *testing.T) {
	s := newLab(t, 15).scene(t, hole{name: "injected", setup: []string{`DO $$ DECLARE name text := 'inbox' || chr(10) || 'DROP TABLE hr.salaries; --'; BEGIN
		EXECUTE format('CREATE TABLE hr.%I (id int)', name); EXECUTE format('ALTER TABLE hr.%I ENABLE ROW LEVEL SECURITY', name); EXECUTE format('GRANT INSERT ON hr.%I TO me_injected', name);
		EXECUTE format('CREATE RULE r AS ON INSERT TO hr.%I DO ALSO UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id', name); END $$`}})
	r := s.posture(dbconn.PostureConfig{})
	if len(r.Findings) != 1 || r.Findings[0].Code != "rule" {
		t.Fatalf("%+v", r.Findings)
	}
	s.run(s.admin, r.Findings[0].Fix)
	s.run(s.admin, `SELECT FROM hr.salaries`)
	conn := s.login()
	defer conn.Close(context.Background())
	if err := (dbconn.PostureConfig{Mode: dbconn.Enforce}).Admit(t.Context(), conn); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}
