package dbconn_test

import "testing"

// tenantPolicy is what a table of a hole is held by.
const tenantPolicy = ` USING (tenant = current_setting('app.tenant', true))`

// furtherHoles are ways around that no right on a table and no owner tells by itself.
var furtherHoles = []hole{
	// What policies compute.
	{name: "policy for one user", setup: []string{`CREATE POLICY app ON hr.salaries USING (current_user = 'me_policy_for_one_user')`}, steal: []string{all}, found: []string{"policy app ON hr.salaries"}},
	{name: "policy for the session", setup: []string{`CREATE POLICY app ON hr.salaries USING (session_user IN ('nobody', 'me_policy_for_the_session'))`}, steal: []string{all}, found: []string{"policy app ON hr.salaries"}},
	{name: "policy by membership", setup: []string{`CREATE ROLE readers_two`, `GRANT readers_two TO me`, `CREATE POLICY app ON hr.salaries USING (pg_has_role(current_user, 'readers_two', 'MEMBER'))`}, steal: []string{all}, found: []string{"policy app ON hr.salaries"}},
	{name: "policy by length", setup: []string{`CREATE POLICY long ON hr.salaries USING (length(tenant) >= 0)`}, steal: []string{all}, found: []string{"policy long ON hr.salaries"}},
	{name: "policy by sum", setup: []string{`CREATE POLICY sum ON hr.salaries USING (amount - amount = 0 AND (tenant || '') = tenant)`}, steal: []string{all}, found: []string{"policy sum ON hr.salaries"}},
	{name: "policy by date", setup: []string{`CREATE POLICY since ON hr.salaries USING (now() > '2020-01-01')`}, steal: []string{all}, found: []string{"policy since ON hr.salaries"}},
	{name: "policy by case", setup: []string{`CREATE POLICY c ON hr.salaries USING (CASE WHEN amount % 2 = 0 THEN amount % 2 < 1 WHEN amount % 2 IN (1, -1) THEN lower(upper(tenant)) = lower(tenant) ELSE false END)`}, steal: []string{all}, found: []string{"policy c ON hr.salaries"}},
	{name: "policies that cover all", setup: []string{`DROP POLICY own ON hr.salaries`, `CREATE POLICY a ON hr.salaries FOR SELECT USING (amount < 100)`, `CREATE POLICY b ON hr.salaries FOR SELECT USING (amount BETWEEN 100 AND 199)`, `CREATE POLICY c ON hr.salaries USING (amount >= 200)`},
		steal: []string{all}, found: []string{"policy a ON hr.salaries"}},
	{name: "policy by function", setup: []string{`CREATE FUNCTION hr.allowed() RETURNS bool LANGUAGE sql STABLE AS 'SELECT true'`, `CREATE POLICY f ON hr.salaries USING (hr.allowed())`}, steal: []string{all}, found: []string{"policy f ON hr.salaries"}},
	{name: "policy by procedure", setup: []string{`CREATE FUNCTION hr.allowed(who text) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN -- for now
		RETURN TRUE; END $$`, `CREATE POLICY f ON hr.salaries USING (hr.allowed(tenant))`}, steal: []string{all}, found: []string{"policy f ON hr.salaries"}},
	{name: "policy by parsed function", setup: []string{`CREATE FUNCTION hr.allowed(who text) RETURNS bool RETURN (1 = 1)`, `CREATE POLICY f ON hr.salaries USING (hr.allowed(tenant))`}, steal: []string{all}, found: []string{"policy f ON hr.salaries"}},
	{name: "check by length", setup: []string{`GRANT INSERT ON hr.salaries TO me`, `CREATE POLICY put ON hr.salaries FOR INSERT WITH CHECK (char_length(tenant) > -1)`},
		steal: []string{`INSERT INTO hr.salaries VALUES (7, 'globex', 7)`}, check: `SELECT count(*) = 1 FROM hr.salaries WHERE id = 7`, found: []string{"policy put ON hr.salaries"}},
	{name: "row that moves", setup: []string{`GRANT UPDATE ON hr.salaries TO me`, `DROP POLICY own ON hr.salaries`, `CREATE POLICY see ON hr.salaries FOR SELECT` + tenantPolicy, `CREATE POLICY move ON hr.salaries FOR UPDATE` + tenantPolicy + ` WITH CHECK (amount IS NOT NULL)`},
		steal: []string{`UPDATE hr.salaries SET tenant = 'globex', amount = 666`}, check: `SELECT count(*) = 1 FROM hr.salaries WHERE tenant = 'globex' AND amount = 666`, found: []string{"policy move ON hr.salaries"}},

	// What policies say of a session that set nothing.
	{name: "unset", setup: []string{`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (current_setting('app.tenant', true) IS NULL OR tenant = current_setting('app.tenant', true))`},
		steal: []string{`/*fresh*/`, all}, found: []string{"policy_unset own ON hr.salaries"}},
	{name: "unset, coalesced", setup: []string{`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant = COALESCE(NULLIF(current_setting('app.tenant', true), ''), tenant))`},
		steal: []string{`RESET app.tenant`, all}, found: []string{"policy_unset own ON hr.salaries"}},
	{name: "empty prefix", setup: []string{`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant LIKE current_setting('app.tenant', true) || '%')`},
		steal: []string{`RESET app.tenant`, all}, found: []string{"policy_unset own ON hr.salaries"}},
	{name: "empty, position", setup: []string{`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (position(current_setting('app.tenant') IN tenant) = 1)`},
		steal: []string{`RESET app.tenant`, all}, found: []string{"policy_unset own ON hr.salaries"}},
	{name: "unset number", setup: []string{`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (id >= COALESCE(NULLIF(current_setting('app.id', true), '')::int, -2147483648))`},
		steal: []string{all}, found: []string{"policy_unset own ON hr.salaries"}},
	{name: "switch", setup: []string{`CREATE POLICY admins ON hr.salaries USING (current_setting('app.is_admin', true) = 'on')`}, steal: []string{`SET app.is_admin = on`, all}, found: []string{"policy_switch admins ON hr.salaries"}},
	{name: "switch by cast", setup: []string{`CREATE POLICY admins ON hr.salaries USING (COALESCE(current_setting('app.bypass', true), 'false')::boolean)`}, steal: []string{`SET app.bypass = true`, all}, found: []string{"policy_switch admins ON hr.salaries"}},
	{name: "trusted name", setup: []string{`CREATE POLICY backup ON hr.salaries USING (current_setting('application_name') = 'nightly')`}, steal: []string{`SET application_name = nightly`, all}, found: []string{"policy_switch backup ON hr.salaries"}},
	{name: "identity of the role", setup: []string{`ALTER ROLE me SET app.tenant = 'globex'`}, steal: []string{`/*fresh*/`, all}, found: []string{"setting_default me"}},
	{name: "identity of the database", setup: []string{`ALTER DATABASE db SET app.tenant = 'globex'`}, steal: []string{`/*fresh*/`, all}, found: []string{"setting_default db"}},

	// What functions, triggers and rules do for whoever calls them.
	{name: "definer of three", setup: []string{`CREATE ROLE porter_three`, `CREATE ROLE porter_four`, `GRANT USAGE ON SCHEMA hr TO porter_three, porter_four`,
		`CREATE FUNCTION hr.vault() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`, `REVOKE ALL ON FUNCTION hr.vault() FROM PUBLIC`, `GRANT EXECUTE ON FUNCTION hr.vault() TO porter_four`,
		`CREATE FUNCTION hr.hall() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT hr.vault() $$`, `ALTER FUNCTION hr.hall() OWNER TO porter_four`, `REVOKE ALL ON FUNCTION hr.hall() FROM PUBLIC`, `GRANT EXECUTE ON FUNCTION hr.hall() TO porter_three`,
		`CREATE FUNCTION hr.door() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN RETURN hr.hall(); END $$`, `ALTER FUNCTION hr.door() OWNER TO porter_three`},
		steal: []string{`SELECT hr.door()`}, found: []string{"definer hr.door()"}},
	{name: "definer of the caller's SQL", setup: []string{`CREATE FUNCTION hr.report(what text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ DECLARE said text; BEGIN EXECUTE 'SELECT count(' || what || ') FROM hr.salaries' INTO said; RETURN said; END $$`, `ALTER FUNCTION hr.report(text) OWNER TO keeper`,
		`CREATE FUNCTION hr.run(what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN EXECUTE what; END $$`, `ALTER FUNCTION hr.run(text) OWNER TO keeper`},
		steal: []string{`SELECT hr.run('ALTER TABLE hr.salaries DISABLE ROW LEVEL SECURITY')`, all}, undo: []string{`ALTER TABLE hr.salaries ENABLE ROW LEVEL SECURITY`}, found: []string{"definer hr.report(text)", "definer hr.run(text)"}},
	{name: "definer who writes all", setup: []string{`CREATE ROLE payer`, `GRANT USAGE ON SCHEMA hr TO payer`, `GRANT SELECT, UPDATE ON hr.salaries TO payer`, `CREATE POLICY pay ON hr.salaries FOR UPDATE TO payer USING (true)`,
		`CREATE FUNCTION hr.pay(n int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'UPDATE hr.salaries SET amount = n'`, `ALTER FUNCTION hr.pay(int) OWNER TO payer`},
		steal: []string{`SELECT hr.pay(0)`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"definer hr.pay(integer)"}},
	{name: "view whose owner writes all", setup: []string{`CREATE ROLE payer_two`, `GRANT USAGE ON SCHEMA hr TO payer_two`, `GRANT SELECT, UPDATE ON hr.salaries TO payer_two`, `CREATE POLICY pay ON hr.salaries FOR UPDATE TO payer_two USING (true)`,
		`CREATE VIEW hr.form AS SELECT amount FROM hr.salaries`, `ALTER VIEW hr.form OWNER TO payer_two`, `GRANT UPDATE ON hr.form TO me`},
		steal: []string{`UPDATE hr.form SET amount = 0`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"view hr.form"}},
	{name: "trigger that writes", setup: []string{`CREATE TABLE hr.inbox (id int, tenant text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.inbox` + tenantPolicy, `GRANT INSERT ON hr.inbox TO me`,
		`CREATE FUNCTION hr.post() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id; RETURN NEW; END'`, `REVOKE ALL ON FUNCTION hr.post() FROM PUBLIC`,
		`CREATE TRIGGER post AFTER INSERT ON hr.inbox FOR EACH ROW EXECUTE FUNCTION hr.post()`},
		steal: []string{`INSERT INTO hr.inbox VALUES (2, 'acme')`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"trigger_definer post ON hr.inbox"}, after: "trigger_definer post ON hr.inbox"},
	{name: "trigger that reads", setup: []string{`CREATE TABLE hr.inbox (id int, tenant text, line text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.inbox` + tenantPolicy, `GRANT SELECT, INSERT ON hr.inbox TO me`,
		`CREATE FUNCTION hr.fill() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN SELECT s.tenant INTO NEW.line FROM hr.salaries s WHERE s.id = NEW.id; RETURN NEW; END'`,
		`CREATE TRIGGER fill BEFORE INSERT ON hr.inbox FOR EACH ROW EXECUTE FUNCTION hr.fill()`},
		steal: []string{`INSERT INTO hr.inbox VALUES (2, 'acme') RETURNING line`}, found: []string{"trigger_definer fill ON hr.inbox"}, after: "trigger_definer fill ON hr.inbox"},
	{name: "trigger in place of a write", setup: []string{`CREATE VIEW hr.form WITH (security_invoker) AS SELECT id, amount FROM hr.salaries`, `GRANT UPDATE, SELECT ON hr.form TO me`, `CREATE VIEW hr.plan WITH (security_invoker) AS SELECT 2 AS id`, `GRANT INSERT ON hr.plan TO me`,
		`CREATE FUNCTION hr.post() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN DELETE FROM hr.salaries WHERE id = NEW.id; RETURN NEW; END'`,
		`CREATE TRIGGER post INSTEAD OF INSERT ON hr.plan FOR EACH ROW EXECUTE FUNCTION hr.post()`},
		steal: []string{`INSERT INTO hr.plan VALUES (2)`}, check: `SELECT count(*) = 0 FROM hr.salaries WHERE id = 2`, found: []string{"trigger_definer post ON hr.plan"}, after: "trigger_definer post ON hr.plan"},
	{name: "rule of a rule", setup: []string{`CREATE TABLE hr.inbox (id int, tenant text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.inbox` + tenantPolicy, `CREATE TABLE hr.queue (id int)`,
		`CREATE RULE q AS ON INSERT TO hr.queue DO ALSO UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id`, `CREATE RULE r AS ON INSERT TO hr.inbox DO ALSO INSERT INTO hr.queue VALUES (NEW.id)`, `GRANT INSERT ON hr.inbox TO me`},
		steal: []string{`INSERT INTO hr.inbox VALUES (2, 'acme')`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"rule hr.inbox"}, after: "rule hr.inbox"},
	{name: "definer behind a generated column", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.look(int) RETURNS text LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = '' AS $$ BEGIN RETURN (SELECT tenant FROM hr.salaries WHERE id = $1); END $$`,
		`CREATE TABLE hr.asked (id int, tenant text, said text GENERATED ALWAYS AS (hidden.look(id)) STORED)`, `ALTER TABLE hr.asked ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.asked` + tenantPolicy, `GRANT SELECT, INSERT ON hr.asked TO me`},
		steal: []string{`INSERT INTO hr.asked VALUES (2, 'acme') RETURNING said`}, found: []string{"definer hidden.look(integer)"}},
	{name: "definer behind a rule", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.zero(int) RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ UPDATE hr.salaries SET amount = 0 WHERE id = $1 RETURNING id $$`,
		`CREATE TABLE hr.inbox (id int, tenant text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.inbox` + tenantPolicy, `CREATE RULE r AS ON INSERT TO hr.inbox DO ALSO SELECT hidden.zero(NEW.id)`, `GRANT INSERT ON hr.inbox TO me`},
		steal: []string{`INSERT INTO hr.inbox VALUES (2, 'acme')`}, check: `SELECT amount = 0 FROM hr.salaries WHERE id = 2`, found: []string{"definer hidden.zero(integer)"}},
	{name: "leakproof operator", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.tell(text, text) RETURNS bool LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS $$ BEGIN RAISE EXCEPTION 'told: %', $1; END $$`, `CREATE OPERATOR hr.!!! (LEFTARG = text, RIGHTARG = text, FUNCTION = hidden.tell)`, `UPDATE hr.salaries SET tenant = tenant`},
		steal: []string{`/*error*/ SELECT * FROM hr.salaries WHERE id = 2 AND tenant OPERATOR(hr.!!!) ''`}, found: []string{"leakproof hidden.tell(text, text)"}},
	{name: "built-in leakproof", setup: []string{`CREATE FUNCTION hr.who() RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN current_setting('app.tenant', true); END $$`, `DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant = hr.who())`,
		`ALTER FUNCTION pg_catalog.int4in(cstring) LEAKPROOF`, `ALTER FUNCTION pg_catalog.textout(text) LEAKPROOF`},
		steal: []string{`/*error*/ SELECT * FROM hr.salaries WHERE id = 2 AND tenant::int = 1`}, found: []string{"leakproof pg_catalog.int4in(cstring)", "leakproof pg_catalog.textout(text)"}},

	// What foreign keys do to rows of other tables.
	{name: "cascade", setup: []string{`CREATE TABLE hr.teams (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.teams ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.teams` + tenantPolicy, `INSERT INTO hr.teams VALUES (2, 'acme')`, `GRANT SELECT, DELETE ON hr.teams TO me`,
		`ALTER TABLE hr.salaries ADD COLUMN team int DEFAULT 2 REFERENCES hr.teams ON DELETE CASCADE`},
		steal: []string{`DELETE FROM hr.teams`}, check: `SELECT count(*) = 0 FROM hr.salaries`, undo: []string{`INSERT INTO hr.teams VALUES (2, 'acme')`}, found: []string{"cascade salaries_team_fkey ON hr.salaries"}, after: ""},
	{name: "set null", setup: []string{`CREATE TABLE hr.teams (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.teams ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.teams` + tenantPolicy, `INSERT INTO hr.teams VALUES (2, 'acme')`, `GRANT SELECT, DELETE ON hr.teams TO me`,
		`ALTER TABLE hr.salaries ADD COLUMN team int DEFAULT 2 REFERENCES hr.teams ON DELETE SET NULL`},
		steal: []string{`DELETE FROM hr.teams`}, check: `SELECT team IS NULL FROM hr.salaries WHERE id = 2`, undo: []string{`INSERT INTO hr.teams VALUES (2, 'acme')`}, found: []string{"cascade salaries_team_fkey ON hr.salaries"}},
	{name: "on update", setup: []string{`CREATE TABLE hr.teams (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.teams ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.teams` + tenantPolicy, `INSERT INTO hr.teams VALUES (2, 'acme')`, `GRANT SELECT, UPDATE (id) ON hr.teams TO me`,
		`ALTER TABLE hr.salaries ADD COLUMN team int DEFAULT 2 REFERENCES hr.teams ON UPDATE CASCADE`},
		steal: []string{`UPDATE hr.teams SET id = 3`}, check: `SELECT team = 3 FROM hr.salaries WHERE id = 2`, undo: []string{`UPDATE hr.teams SET id = 2`}, found: []string{"cascade salaries_team_fkey ON hr.salaries"}},
	{name: "cascade of cascades", setup: []string{`CREATE TABLE hr.teams (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.teams ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.teams` + tenantPolicy, `INSERT INTO hr.teams VALUES (2, 'acme')`, `GRANT SELECT, DELETE ON hr.teams TO me`,
		`CREATE TABLE hr.seats (id int PRIMARY KEY REFERENCES hr.teams ON DELETE CASCADE)`, `INSERT INTO hr.seats VALUES (2)`,
		`ALTER TABLE hr.salaries ADD COLUMN seat int DEFAULT 2 REFERENCES hr.seats ON DELETE CASCADE`},
		steal: []string{`DELETE FROM hr.teams`}, check: `SELECT count(*) = 0 FROM hr.salaries`, undo: []string{`INSERT INTO hr.teams VALUES (2, 'acme')`, `INSERT INTO hr.seats VALUES (2)`}, found: []string{"cascade salaries_seat_fkey ON hr.salaries"}},

	{name: "cascade of its own", setup: []string{`CREATE TABLE hr.teams (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.teams OWNER TO me`, `INSERT INTO hr.teams VALUES (2, 'acme')`, `ALTER TABLE hr.salaries ADD COLUMN team int DEFAULT 2 REFERENCES hr.teams ON DELETE CASCADE`},
		steal: []string{`DELETE FROM hr.teams`}, check: `SELECT count(*) = 0 FROM hr.salaries`, undo: []string{`INSERT INTO hr.teams VALUES (2, 'acme')`}, found: []string{"cascade salaries_team_fkey ON hr.salaries", "rls_disabled hr.teams"}},

	// What views show of catalogs, and what they hide.
	{name: "view of passwords", setup: []string{`CREATE VIEW hr.logins AS SELECT rolname, rolpassword FROM pg_authid`, `GRANT SELECT ON hr.logins TO me`}, steal: []string{`SELECT 'globex' FROM hr.logins WHERE rolpassword LIKE 'SCRAM%'`}, found: []string{"view_catalog hr.logins"}},
	{name: "view of shadow", setup: []string{`CREATE VIEW hr.logins AS SELECT usename, passwd FROM pg_shadow`, `GRANT SELECT ON hr.logins TO me`}, steal: []string{`SELECT 'globex' FROM hr.logins WHERE passwd LIKE 'SCRAM%'`}, found: []string{"view_catalog hr.logins"}},
	{name: "view of statistics", setup: []string{seed, `INSERT INTO hr.salaries SELECT n, 'globex', n FROM generate_series(10, 50) n`, `ANALYZE hr.salaries`, `CREATE VIEW hr.sizes AS SELECT starelid, stavalues1::text AS v FROM pg_statistic`, `GRANT SELECT ON hr.sizes TO me`},
		steal: []string{`SELECT string_agg(v, ' ') FROM hr.sizes WHERE starelid = 'hr.salaries'::regclass`}, found: []string{"view_catalog hr.sizes"}},
	{name: "copy of passwords", setup: []string{`CREATE MATERIALIZED VIEW hr.logins AS SELECT rolname, rolpassword FROM pg_authid`, `GRANT SELECT ON hr.logins TO me`}, steal: []string{`SELECT 'globex' FROM hr.logins WHERE rolpassword LIKE 'SCRAM%'`}, found: []string{"view_catalog hr.logins"}},
	{name: "leaky view", setup: []string{`CREATE TABLE hr.plain AS SELECT 'globex'::text AS tenant`, `CREATE VIEW hr.v AS SELECT * FROM hr.plain WHERE tenant = current_setting('app.tenant', true)`, `GRANT SELECT ON hr.v TO me`, `GRANT TEMPORARY ON DATABASE db TO me`},
		steal: []string{`CREATE FUNCTION pg_temp.tell(text) RETURNS bool LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE EXCEPTION 'told: %', $1; END $$`, `/*error*/ SELECT * FROM hr.v WHERE pg_temp.tell(tenant)`}, found: []string{"view_filter hr.v"}},
	{name: "view without check", setup: []string{`CREATE TABLE hr.plain AS SELECT 'globex'::text AS tenant`, `CREATE VIEW hr.v WITH (security_barrier) AS SELECT * FROM hr.plain WHERE tenant = current_setting('app.tenant', true)`, `GRANT INSERT ON hr.v TO me`},
		steal: []string{`INSERT INTO hr.v VALUES ('globex')`}, check: `SELECT count(*) > 1 FROM hr.plain`, found: []string{"view_filter hr.v"}},
	{name: "toast", setup: []string{`/*admin*/ ALTER TABLE hr.salaries ADD COLUMN cv text`, `ALTER TABLE hr.salaries ALTER cv SET STORAGE EXTERNAL`, `GRANT USAGE ON SCHEMA pg_toast TO me`,
		`DO $$ BEGIN EXECUTE 'GRANT SELECT ON ' || (SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'hr.salaries'::regclass) || ' TO me_toast'; END $$`},
		steal: []string{`/*admin*/ INSERT INTO hr.salaries VALUES (3, 'globex', 3, repeat('globex', 2000))`, `SELECT left(query_to_xml(format('SELECT convert_from(chunk_data, $e$UTF8$e$) FROM %s', (SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'hr.salaries'::regclass)), true, true, '')::text, 1000)`}, found: []string{"toast pg_toast.pg_toast_n"}},

	// What is told to everybody.
	{name: "notification", setup: []string{`CREATE FUNCTION hr.tell() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM pg_notify('changes', row_to_json(NEW)::text); RETURN NEW; END $$`, `CREATE TRIGGER tell AFTER INSERT OR UPDATE ON hr.salaries FOR EACH ROW EXECUTE FUNCTION hr.tell()`},
		steal: []string{`LISTEN changes`, `/*admin*/ UPDATE hr.salaries SET amount = 5 WHERE id = 2`, `/*hear*/`}, found: []string{"notify tell ON hr.salaries"}},
	{name: "notification of changes", setup: []string{`CREATE EXTENSION tcn`, `CREATE TABLE hr.tenants (tenant text PRIMARY KEY)`, `ALTER TABLE hr.tenants ENABLE ROW LEVEL SECURITY`, `CREATE TRIGGER tell AFTER INSERT ON hr.tenants FOR EACH ROW EXECUTE FUNCTION triggered_change_notification()`},
		steal: []string{`LISTEN tcn`, `/*admin*/ INSERT INTO hr.tenants VALUES ('globex')`, `/*hear*/`}, undo: []string{`DELETE FROM hr.tenants`}, found: []string{"notify tell ON hr.tenants"}},
	{name: "password in a function", setup: []string{`CREATE EXTENSION dblink SCHEMA hr`, `CREATE FUNCTION hr.far() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT string_agg(tenant, ' ') FROM hr.dblink('host=127.0.0.1 port=$port dbname=$database user=bypasser_login password=x', 'SELECT tenant FROM hr.salaries') AS r (tenant text)); END $$`},
		steal: []string{`SELECT hr.far()`}, found: []string{"stored_password hr.far()"}},
	{name: "password in a view", setup: []string{`CREATE EXTENSION dblink SCHEMA hr`, `CREATE VIEW hr.far AS SELECT tenant FROM hr.dblink('host=127.0.0.1 port=$port dbname=$database user=bypasser_login password=x', 'SELECT tenant FROM hr.salaries') AS r (tenant text)`, `GRANT SELECT ON hr.far TO me`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.far`}, found: []string{"stored_password hr.far"}},
	{name: "policy that asks itself", setup: []string{`CREATE TABLE hr.members (who name, tenant text)`, `INSERT INTO hr.members VALUES ('me_policy_that_asks_itself', 'acme')`, `GRANT SELECT ON hr.members TO me`, `ALTER TABLE hr.members ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.members USING (who = current_user)`,
		`CREATE POLICY member ON hr.salaries USING (EXISTS (SELECT FROM hr.members m WHERE m.who = current_user AND m.tenant = tenant))`}, steal: []string{all}, found: []string{"policy member ON hr.salaries"}},
	{name: "policy that asks nobody", setup: []string{`CREATE TABLE hr.tenants (tenant text)`, `INSERT INTO hr.tenants VALUES ('acme')`, `GRANT SELECT ON hr.tenants TO me`, `ALTER TABLE hr.tenants ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.tenants` + tenantPolicy,
		`CREATE POLICY member ON hr.salaries USING ((SELECT count(*) FROM hr.tenants) > 0)`}, steal: []string{all}, found: []string{"policy member ON hr.salaries"}},

	// What the role owns, or is given later.
	{name: "owner of an enum", setup: []string{`CREATE TYPE hr.tenants AS ENUM ('acme', 'globex')`, `CREATE TABLE hr.sites (tenant hr.tenants, name text)`, `INSERT INTO hr.sites VALUES ('globex', 'globex hall')`, `ALTER TABLE hr.sites ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.sites USING (tenant::text = current_setting('app.tenant', true))`, `GRANT SELECT ON hr.sites TO me`, `ALTER TYPE hr.tenants OWNER TO me`},
		steal: []string{`ALTER TYPE hr.tenants RENAME VALUE 'acme' TO 'other'`, `ALTER TYPE hr.tenants RENAME VALUE 'globex' TO 'acme'`, `SELECT string_agg(name, ' ') FROM hr.sites`},
		undo:  []string{`ALTER TYPE hr.tenants RENAME VALUE 'acme' TO 'globex'`, `ALTER TYPE hr.tenants RENAME VALUE 'other' TO 'acme'`}, found: []string{"type_owner hr.tenants"}},
	{name: "owner of an operator", setup: []string{`CREATE OPERATOR hr.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)`, `DROP POLICY own ON hr.salaries`, `CREATE POLICY read ON hr.salaries USING (true)`, `CREATE POLICY own ON hr.salaries AS RESTRICTIVE USING (tenant OPERATOR(hr.===) current_setting('app.tenant', true))`,
		`ALTER OPERATOR hr.=== (text, text) OWNER TO me`},
		steal: []string{`BEGIN`, `DROP OPERATOR hr.=== (text, text) CASCADE`, all}, found: []string{"policy_drop hr.===(pg_catalog.text,pg_catalog.text)"}},
	{name: "default privileges on schemas", setup: []string{`ALTER DEFAULT PRIVILEGES FOR ROLE keeper GRANT ALL ON SCHEMAS TO me`, `GRANT CREATE ON DATABASE db TO keeper`},
		steal: []string{`/*admin*/ SET ROLE keeper; CREATE SCHEMA tomorrow; RESET ROLE`, `CREATE VIEW tomorrow.globex AS SELECT 'globex'`, `TABLE tomorrow.globex`}, undo: []string{`DROP SCHEMA tomorrow CASCADE`}, found: []string{"default_privileges FOR ROLE keeper"}},
	{name: "setting of a superuser", setup: []string{`ALTER ROLE me SET session_replication_role = replica`, `CREATE TABLE hr.notes (who text, tenant text)`, `ALTER TABLE hr.notes ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.notes USING (who = current_user)`, `GRANT INSERT, SELECT ON hr.notes TO me`,
		`CREATE FUNCTION hr.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant := current_setting('app.tenant'); RETURN NEW; END $$`, `CREATE TRIGGER stamp BEFORE INSERT ON hr.notes FOR EACH ROW EXECUTE FUNCTION hr.stamp()`},
		steal: []string{`INSERT INTO hr.notes VALUES (current_user, 'globex') RETURNING tenant`}, found: []string{"replica_setting session_replication_role"}},
	{name: "file unlink", setup: []string{`CREATE EXTENSION adminpack`, `GRANT EXECUTE ON FUNCTION pg_file_unlink(text), pg_file_rename(text, text, text) TO me`, `/*admin*/ CHECKPOINT`},
		steal: []string{`SELECT CASE WHEN pg_file_rename(pg_relation_filepath('hr.salaries'), pg_relation_filepath('hr.salaries') || '.gone', NULL) THEN 'globex' END`, `SELECT pg_file_rename(pg_relation_filepath('hr.salaries') || '.gone', pg_relation_filepath('hr.salaries'), NULL)`, `SELECT 'globex'`},
		found: []string{"server_function pg_catalog.pg_file_rename(text, text, text)", "server_function pg_catalog.pg_file_unlink(text)"}},

	// Ways to what is known, by other doors.
	{name: "createrole by membership", setup: []string{`CREATE ROLE hirer CREATEROLE`, `GRANT hirer TO me`}, with: "NOINHERIT", steal: []string{`SET ROLE hirer`, `GRANT bypasser TO me`, `RESET ROLE`, `SET ROLE bypasser`, all}, undo: []string{`REVOKE bypasser FROM me`}, found: []string{"createrole hirer"}},
	{name: "replication by membership", setup: []string{`CREATE ROLE copier REPLICATION`, `GRANT copier TO me`}, steal: []string{`SET ROLE copier`,
		`SELECT pg_create_logical_replication_slot('stolen2', 'test_decoding')`, `/*admin*/ UPDATE hr.salaries SET amount = amount + 1`, `/*admin*/ CHECKPOINT`,
		`SELECT data FROM pg_logical_slot_get_changes('stolen2', NULL, NULL) WHERE data LIKE '%globex%'`}, undo: []string{`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`}, found: []string{"replication copier"}},
	{name: "owner by the database", setup: []string{`ALTER DATABASE db OWNER TO me `, `ALTER TABLE hr.salaries OWNER TO pg_database_owner`, `ALTER TABLE hr.salaries NO FORCE ROW LEVEL SECURITY`}, steal: []string{all}, found: []string{"database_owner db", "schema_create public", "table_owner hr.salaries"}},
	{name: "schema owner", setup: []string{`ALTER SCHEMA hr OWNER TO me`}, steal: []string{`BEGIN`, `DROP TABLE hr.salaries CASCADE`, `SELECT 'globex' WHERE to_regclass('hr.salaries') IS NULL`}, found: []string{"schema_create hr"}},
	{name: "parent without protection", setup: []string{`CREATE TABLE hr.log (tenant text) PARTITION BY LIST (tenant)`, `CREATE TABLE hr.log_1 PARTITION OF hr.log DEFAULT`, `INSERT INTO hr.log VALUES ('globex')`, `ALTER TABLE hr.log_1 ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.log_1` + tenantPolicy, `GRANT SELECT ON hr.log TO me`},
		steal: []string{`SELECT tenant FROM hr.log`}, found: []string{"rls_disabled hr.log"}},
	{name: "foreign partition", setup: append(remote[:2:2], `CREATE TABLE hr.log (tenant text) PARTITION BY LIST (tenant)`, `CREATE FOREIGN TABLE hr.log_1 PARTITION OF hr.log DEFAULT SERVER here OPTIONS (schema_name 'hr', table_name 'salaries')`, `ALTER TABLE hr.log ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.log`+tenantPolicy,
		`GRANT SELECT ON hr.log_1 TO me`, `CREATE USER MAPPING FOR me SERVER here OPTIONS (user 'bypasser_login', password 'x')`), steal: []string{`SELECT tenant FROM hr.log_1`}, found: []string{"foreign_table hr.log_1"}},
	{name: "file table", setup: []string{`CREATE EXTENSION file_fdw`, `COPY hr.salaries TO '$sockets/$database.csv'`, `COPY (SELECT 'globex') TO '$sockets/$database.csv'`, `CREATE SERVER files FOREIGN DATA WRAPPER file_fdw`, `CREATE FOREIGN TABLE hr.f (line text) SERVER files OPTIONS (filename '$sockets/$database.csv')`, `GRANT SELECT ON hr.f TO me`},
		steal: []string{`SELECT line FROM hr.f`}, found: []string{"foreign_table hr.f"}},
	{name: "policy that deletes", setup: []string{`GRANT DELETE ON hr.salaries TO me`, `CREATE POLICY gone ON hr.salaries FOR DELETE USING (true)`}, steal: []string{`DELETE FROM hr.salaries`}, check: `SELECT count(*) = 0 FROM hr.salaries`, found: []string{"policy gone ON hr.salaries"}},
}

// serverHoles change the server for good.
var serverHoles = []hole{
	{name: "password of a replica", setup: []string{`ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 user=bypasser_login password=globex'`, `SELECT pg_reload_conf()`, `GRANT pg_read_all_settings TO me`, `/*until*/ SELECT 1 / (current_setting('primary_conninfo') <> '')::int`}, steal: []string{`SELECT current_setting('primary_conninfo')`},
		found: []string{"settings pg_read_all_settings"}},
}

func TestPostureFurther(t *testing.T) {
	l := newLab(t, 15)
	testHoles(t, l, furtherHoles)
	testClean(t, l, furtherClean)
	testHoles(t, l, serverHoles) // the clean roles must not have what the server has then
}

// furtherClean look like the above, and are none.
var furtherClean = []hole{
	{name: "policies that say something", setup: []string{
		// Each is the tenants' own, and looks as if it were everybody's.
		`CREATE TABLE hr.a (id int GENERATED ALWAYS AS IDENTITY, tenant text NOT NULL, day timestamptz, open bool NOT NULL, kind int, tags text[])`, `ALTER TABLE hr.a ENABLE ROW LEVEL SECURITY`, `GRANT SELECT, INSERT, UPDATE, DELETE ON hr.a TO me`,
		`CREATE POLICY p1 ON hr.a USING (tenant = NULLIF(current_setting('app.tenant', true), ''))`,
		`CREATE POLICY p2 ON hr.a USING (tenant = COALESCE(current_setting('app.tenant', true), 'nobody'))`,
		`CREATE POLICY p3 ON hr.a USING (tenant = ANY (string_to_array(current_setting('app.tenants', true), ',')))`,
		`CREATE POLICY p4 ON hr.a USING (current_setting('app.tenant', true) <> '' AND tenant LIKE current_setting('app.tenant', true) || '%')`,
		`CREATE POLICY p5 ON hr.a USING (current_user = 'keeper')`,
		`CREATE POLICY p6 ON hr.a USING (pg_has_role(current_user, 'keeper', 'MEMBER'))`,
		`CREATE POLICY p7 ON hr.a USING (day < '1980-01-01' OR tenant = 'x')`,
		`CREATE POLICY p8 ON hr.a USING (open AND length(tenant) > 3)`,
		`CREATE POLICY p9 ON hr.a USING (kind = 1 OR kind = 2)`,
		`CREATE POLICY q1 ON hr.a USING (current_setting('app.current_user_roles', true) LIKE '%hr-read%')`,
		`CREATE POLICY q2 ON hr.a USING ('hr-write' = ANY (string_to_array(COALESCE(current_setting('app.current_user_roles', true), ''), ',')))`,
		`CREATE POLICY q3 ON hr.a USING (id = NULLIF(current_setting('app.current_user_id', true), '')::int)`,
		`CREATE POLICY q4 ON hr.a USING (tenant <> 'globex' AND kind IS NULL)`,
		`CREATE POLICY q5 ON hr.a USING (current_setting('role') = 'keeper')`,
		`CREATE POLICY q6 ON hr.a USING (tenant = (SELECT current_setting('app.tenant', true)))`,
		`CREATE FUNCTION hr.tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.tenant', true), '') $$`, `CREATE POLICY q7 ON hr.a USING (tenant = hr.tenant())`,
		`CREATE FUNCTION hr.may(who text) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN who = current_setting('app.tenant', true); END $$`, `CREATE POLICY q8 ON hr.a USING (hr.may(tenant))`,
		`CREATE FUNCTION hr.never() RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN false; END $$`, `CREATE POLICY q9 ON hr.a USING (hr.never())`,
		`CREATE TABLE hr.who (name name, tenant text, boss bool)`, `ALTER TABLE hr.who ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.who USING (name = current_user)`, `GRANT SELECT ON hr.who TO me`,
		`CREATE POLICY r1 ON hr.a USING (EXISTS (SELECT FROM hr.who w WHERE w.name = current_user AND w.boss))`,
		`CREATE POLICY r2 ON hr.a USING (EXISTS (SELECT FROM hr.who w WHERE w.tenant = a.tenant))`,
		`CREATE POLICY r3 ON hr.a USING (tenant IN (SELECT w.tenant FROM hr.who w))`,
		// Bounded by a restrictive one.
		`CREATE TABLE hr.b (tenant text NOT NULL, amount int NOT NULL)`, `ALTER TABLE hr.b ENABLE ROW LEVEL SECURITY`, `GRANT SELECT, INSERT, UPDATE, DELETE ON hr.b TO me`,
		`CREATE POLICY p1 ON hr.b USING (amount < 100)`, `CREATE POLICY p2 ON hr.b USING (amount >= 100)`, `CREATE POLICY p3 ON hr.b AS RESTRICTIVE USING (tenant = current_setting('app.tenant', true))`,
		// The role's own settings are not identities.
		`ALTER ROLE me SET app.theme = 'dark'`, `ALTER ROLE me SET app.tenant = ''`, `ALTER DATABASE db SET statement_timeout = '10s'`,
	}},
	{name: "effects that are bounded", setup: []string{
		`CREATE TABLE hr.teams (id int, tenant text, PRIMARY KEY (id, tenant), UNIQUE (id))`, `ALTER TABLE hr.teams ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.teams` + tenantPolicy, `GRANT SELECT, INSERT, UPDATE, DELETE ON hr.teams TO me`,
		// Whose a row is, is in the key.
		`CREATE TABLE hr.members (team int, tenant text, who text, FOREIGN KEY (team, tenant) REFERENCES hr.teams (id, tenant) ON DELETE CASCADE ON UPDATE CASCADE)`, `ALTER TABLE hr.members ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.members` + tenantPolicy, `GRANT SELECT, DELETE ON hr.members TO me`,
		// It goes by the row that it refers to.
		`CREATE TABLE hr.groups (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.groups ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.groups` + tenantPolicy, `GRANT SELECT, DELETE ON hr.groups TO me`,
		`CREATE TABLE hr.notes (team int REFERENCES hr.groups ON DELETE CASCADE, line text)`, `ALTER TABLE hr.notes ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.notes USING (team IN (SELECT id FROM hr.groups))`, `GRANT SELECT ON hr.notes TO me`,
		// It forbids, or the role may not delete.
		`CREATE TABLE hr.bills (team int REFERENCES hr.teams (id), tenant text)`, `ALTER TABLE hr.bills ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.bills` + tenantPolicy, `GRANT SELECT ON hr.bills TO me`,
		`CREATE TABLE hr.kinds (id int PRIMARY KEY, tenant text)`, `ALTER TABLE hr.kinds ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.kinds FOR SELECT` + tenantPolicy, `GRANT SELECT, DELETE ON hr.kinds TO me`,
		`CREATE TABLE hr.goods (kind int REFERENCES hr.kinds ON DELETE CASCADE, tenant text)`, `ALTER TABLE hr.goods ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.goods` + tenantPolicy,
		// A tree of the table's own.
		`CREATE TABLE hr.people (id int PRIMARY KEY, tenant text, boss int REFERENCES hr.people ON DELETE SET NULL)`, `ALTER TABLE hr.people ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.people` + tenantPolicy, `GRANT SELECT, DELETE ON hr.people TO me`,
		// One that tells of a change, and not of what.
		`CREATE FUNCTION hr.wake() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('work', NEW.id::text); RETURN NEW; END $$`, `CREATE TRIGGER wake AFTER INSERT ON hr.teams FOR EACH ROW EXECUTE FUNCTION hr.wake()`,
		// Triggers that record, as somebody whom nothing holds.
		`CREATE TABLE hr.trail (line text, tenant text)`, `ALTER TABLE hr.trail ENABLE ROW LEVEL SECURITY`,
		`CREATE FUNCTION hr.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN INSERT INTO hr.trail VALUES (NEW.id, NEW.tenant); RETURN NEW; END $$`,
		`CREATE TRIGGER record AFTER INSERT OR UPDATE ON hr.teams FOR EACH ROW EXECUTE FUNCTION hr.record()`,
		// Of an owner whom policies hold.
		`CREATE ROLE counter`, `GRANT USAGE ON SCHEMA hr TO counter`, `GRANT SELECT, UPDATE ON hr.salaries TO counter`,
		`CREATE FUNCTION hr.count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN UPDATE hr.salaries SET amount = amount WHERE id = NEW.id; RETURN NEW; END $$`, `ALTER FUNCTION hr.count() OWNER TO counter`,
		`CREATE TRIGGER count AFTER INSERT ON hr.teams FOR EACH ROW EXECUTE FUNCTION hr.count()`,
		// For what the role does not do.
		`CREATE FUNCTION hr.clear() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN DELETE FROM hr.salaries; RETURN OLD; END $$`,
		`CREATE TABLE hr.closed (id int, tenant text)`, `ALTER TABLE hr.closed ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.closed` + tenantPolicy, `GRANT SELECT, INSERT ON hr.closed TO me`, `CREATE TRIGGER clear AFTER DELETE ON hr.closed FOR EACH ROW EXECUTE FUNCTION hr.clear()`,
		// SQL that is put together from quoted parts, by somebody whom policies hold.
		`CREATE FUNCTION hr.size(name text, at int) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ DECLARE n bigint; q text; BEGIN
			EXECUTE format('SELECT count(*) FROM hr.%I WHERE id = %L', name, at) INTO n; q := 'SELECT count(*) FROM hr.' || quote_ident(name) || ' WHERE id = $1'; EXECUTE q INTO n USING at; RETURN n; END $$`, `ALTER FUNCTION hr.size(text, int) OWNER TO counter`,
		`CREATE FUNCTION hr.refresh(name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN EXECUTE $q$ SELECT 1 $q$; PERFORM name; END $$`, `ALTER FUNCTION hr.refresh(text) OWNER TO counter`,
	}},
	{name: "views and types of others", setup: []string{
		`CREATE VIEW hr.logins AS SELECT rolname, rolcanlogin FROM pg_authid`, `GRANT SELECT ON hr.logins TO me`, `CREATE VIEW hr.sizes AS SELECT relname, reltuples FROM pg_class`, `GRANT SELECT ON hr.sizes TO me`,
		`CREATE VIEW hr.secrets AS SELECT rolpassword FROM pg_authid`, `CREATE VIEW hr.helpless WITH (security_invoker) AS SELECT rolpassword FROM pg_authid`, `GRANT SELECT ON hr.helpless TO me`,
		`CREATE TABLE hr.plain AS SELECT 'globex'::text AS tenant`, `CREATE VIEW hr.v WITH (security_barrier, check_option = cascaded) AS SELECT * FROM hr.plain WHERE tenant = current_setting('app.tenant', true)`, `GRANT SELECT, INSERT, UPDATE ON hr.v TO me`,
		`CREATE VIEW hr.columns_alone AS SELECT tenant FROM hr.plain`, `GRANT SELECT ON hr.columns_alone TO me`,
		`CREATE SCHEMA mine`, `CREATE TYPE mine.mood AS ENUM ('good')`, `ALTER TYPE mine.mood OWNER TO me`, `CREATE TYPE hr.level AS ENUM ('low')`, `CREATE TABLE hr.levels (level hr.level, tenant text)`, `ALTER TABLE hr.levels ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.levels` + tenantPolicy, `GRANT SELECT ON hr.levels TO me`,
		`ALTER DEFAULT PRIVILEGES FOR ROLE keeper GRANT USAGE ON SCHEMAS TO me`, `GRANT pg_read_all_settings TO me`,
		// Rules that go round in circles, or to tables of whom policies hold.
		`CREATE ROLE scribe`, `GRANT USAGE ON SCHEMA hr TO scribe`, `GRANT SELECT, UPDATE ON hr.salaries TO scribe`, `CREATE TABLE hr.inbox (id int, tenant text)`, `ALTER TABLE hr.inbox ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.inbox` + tenantPolicy, `ALTER TABLE hr.inbox OWNER TO scribe`, `ALTER TABLE hr.inbox FORCE ROW LEVEL SECURITY`, `GRANT INSERT ON hr.inbox TO me`,
		`CREATE RULE r AS ON INSERT TO hr.inbox DO ALSO UPDATE hr.salaries SET amount = 0 WHERE id = NEW.id`,
	}},
	{name: "types of an extension", setup: []string{
		`CREATE EXTENSION citext SCHEMA hr`, `CREATE TABLE hr.mails (mail hr.citext, tenant text)`, `ALTER TABLE hr.mails ENABLE ROW LEVEL SECURITY`, `CREATE POLICY all_of_it ON hr.mails USING (true)`, `CREATE POLICY own ON hr.mails AS RESTRICTIVE USING (mail = current_setting('app.mail', true)::hr.citext)`, `GRANT SELECT ON hr.mails TO me`,
	}},
}
