package dbconn_test

// reachHoles are functions and tables that the role comes to by what may call or
// read them.
var reachHoles = []hole{
	{name: "definer behind a view", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.everybody() RETURNS SETOF hr.salaries LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT * FROM hr.salaries'`,
		`CREATE VIEW hidden.inner WITH (security_invoker = true) AS SELECT * FROM hidden.everybody()`, `GRANT SELECT ON hidden.inner TO me`,
		`CREATE VIEW hr.v WITH (security_invoker = true) AS SELECT * FROM hidden.inner`, `GRANT SELECT ON hr.v TO me`},
		steal: []string{`SELECT string_agg(tenant, ' ') FROM hr.v`}, found: []string{"definer hidden.everybody()"}},
	{name: "definer behind a default", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.tenants() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`,
		`CREATE TABLE hr.notes (who name DEFAULT current_user, line text DEFAULT hidden.tenants())`, `ALTER TABLE hr.notes ENABLE ROW LEVEL SECURITY`, `CREATE POLICY own ON hr.notes USING (who = current_user)`, `GRANT SELECT, INSERT ON hr.notes TO me`},
		steal: []string{`INSERT INTO hr.notes DEFAULT VALUES RETURNING line`}, found: []string{"definer hidden.tenants()"}},
	{name: "definer in an aggregate", setup: []string{`CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.step(text, text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`,
		`REVOKE ALL ON FUNCTION hidden.step(text, text) FROM PUBLIC`, `CREATE AGGREGATE hr.list(text) (SFUNC = hidden.step, STYPE = text, INITCOND = '')`},
		steal: []string{`SELECT hr.list('x')`}, found: []string{"definer hr.list(text)"}},

	{name: "policies that complement each other", setup: []string{`CREATE POLICY halves ON hr.salaries FOR SELECT USING (amount < 150)`, `CREATE POLICY others ON hr.salaries FOR SELECT USING (NOT amount < 150)`, `DROP POLICY own ON hr.salaries`},
		steal: []string{all}, found: []string{"policy halves ON hr.salaries"}},
	{name: "list of exceptions", setup: []string{`CREATE TABLE hr.secret (who name, tenant text)`, `INSERT INTO hr.secret VALUES ('me ', 'globex')`, `ALTER TABLE hr.secret ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.secret USING (who = current_user)`, `GRANT SELECT, DELETE ON hr.secret TO me`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (NOT EXISTS (SELECT FROM hr.secret s WHERE s.tenant = salaries.tenant))`},
		steal: []string{`BEGIN`, `DELETE FROM hr.secret`, all}, found: []string{"policy_source hr.secret"}},
	{name: "members by way of a function", setup: []string{`CREATE TABLE hr.members (who name, tenant text)`, `ALTER TABLE hr.members ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY own ON hr.members USING (who = session_user)`, `GRANT SELECT, INSERT ON hr.members TO me`, `CREATE ROLE looker`, `GRANT USAGE ON SCHEMA hr TO looker`, `GRANT SELECT ON hr.members TO looker`,
		`CREATE FUNCTION hr.mine() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT tenant FROM hr.members WHERE who = session_user'`, `ALTER FUNCTION hr.mine() OWNER TO looker`,
		`DROP POLICY own ON hr.salaries`, `CREATE POLICY own ON hr.salaries USING (tenant IN (SELECT hr.mine()))`},
		steal: []string{`BEGIN`, `INSERT INTO hr.members VALUES (current_user, 'globex')`, all}, found: []string{"policy_source hr.members"}},

	{name: "definer in its owner's schema", setup: []string{`CREATE ROLE clerk_four`, `CREATE SCHEMA clerk_four`, `GRANT CREATE, USAGE ON SCHEMA clerk_four TO me`, `GRANT USAGE ON SCHEMA hr, clerk_four TO clerk_four`, `GRANT SELECT ON hr.salaries TO clerk_four`,
		`CREATE POLICY clerk ON hr.salaries TO clerk_four USING (tenant = 'globex' AND amount > 0)`,
		`CREATE FUNCTION hr.tidied() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = "$user", pg_catalog, pg_temp AS $$ BEGIN RETURN tidy('x'::text); END $$`, `ALTER FUNCTION hr.tidied() OWNER TO clerk_four`},
		steal: []string{`CREATE FUNCTION clerk_four.tidy(text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`, `SELECT hr.tidied()`},
		undo:  []string{`DROP FUNCTION clerk_four.tidy(text)`}, found: []string{"definer_search_path hr.tidied()", "schema_create clerk_four"}},
	{name: "definer in a schema to come", setup: []string{`GRANT CREATE ON DATABASE db TO me`, `CREATE ROLE clerk_five`, `GRANT USAGE ON SCHEMA hr TO clerk_five`, `GRANT SELECT ON hr.salaries TO clerk_five`,
		`CREATE POLICY clerk ON hr.salaries TO clerk_five USING (tenant = 'globex' AND amount > 0)`,
		`CREATE FUNCTION hr.tidied() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = tools, pg_catalog, pg_temp AS $$ BEGIN RETURN tidy('x'::text); END $$`, `ALTER FUNCTION hr.tidied() OWNER TO clerk_five`},
		steal: []string{`CREATE SCHEMA tools`, `GRANT USAGE ON SCHEMA tools TO PUBLIC`, `CREATE FUNCTION tools.tidy(text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`, `SELECT hr.tidied()`},
		undo:  []string{`DROP SCHEMA tools CASCADE`}, found: []string{"database_create db", "definer_search_path hr.tidied()"}},
	{name: "definer of a temporary table", setup: []string{`GRANT TEMPORARY ON DATABASE db TO me`, `CREATE ROLE clerk_six`, `GRANT USAGE ON SCHEMA hr TO clerk_six`, `GRANT SELECT ON hr.salaries TO clerk_six`,
		`CREATE POLICY clerk ON hr.salaries TO clerk_six USING (tenant = 'globex' AND amount > 0)`, `CREATE TABLE hr.clicks (line text)`, `GRANT INSERT ON hr.clicks TO clerk_six`,
		`CREATE FUNCTION hr.click() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = hr AS $$ BEGIN INSERT INTO clicks (line) VALUES ('x'); END $$`, `ALTER FUNCTION hr.click() OWNER TO clerk_six`},
		steal: []string{`CREATE TEMP TABLE clicks (line text)`, `CREATE TEMP TABLE loot (tenant text)`, `GRANT ALL ON clicks, loot TO PUBLIC`,
			`CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO pg_temp.loot SELECT tenant FROM hr.salaries; RETURN NEW; END'`,
			`CREATE TRIGGER take BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION pg_temp.take()`, `SELECT hr.click()`, `SELECT string_agg(tenant, ' ') FROM loot`}, found: []string{"definer_search_path hr.click()"}},
	{name: "language by another name", setup: []string{`ALTER LANGUAGE internal RENAME TO fast`, `UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'fast'`, `GRANT USAGE ON LANGUAGE fast TO me`, `CREATE SCHEMA mine AUTHORIZATION me`},
		steal: []string{`CREATE FUNCTION mine.read(text) RETURNS bytea LANGUAGE fast AS 'pg_read_binary_file_all'`, `/*admin*/ CHECKPOINT`, `SELECT 'globex' WHERE position('globex'::bytea IN mine.read(pg_relation_filepath('hr.salaries'))) > 0`},
		found: []string{"schema_create mine", "untrusted_language fast"}},
}

// reachClean look like the above, and are none.
var reachClean = []hole{
	{name: "out of reach", setup: []string{
		`CREATE SCHEMA hidden`, `GRANT TEMPORARY ON DATABASE db TO me`, `CREATE ROLE teller`, `GRANT USAGE ON SCHEMA hr TO teller`, `GRANT SELECT, UPDATE, INSERT ON hr.salaries TO teller`,
		`CREATE FUNCTION hidden.everybody() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$ SELECT string_agg(tenant, ' ') FROM hr.salaries $$`,
		// What calls it is not the role's to use.
		`CREATE VIEW hr.v AS SELECT hidden.everybody()`, `CREATE TABLE hr.notes (who name, line text DEFAULT hidden.everybody())`, `ALTER TABLE hr.notes ENABLE ROW LEVEL SECURITY`, `GRANT SELECT ON hr.notes TO me`,
		// What is called runs as somebody whom policies hold.
		`CREATE FUNCTION hidden.count() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT count(*) FROM hr.salaries'`, `ALTER FUNCTION hidden.count() OWNER TO teller`,
		`CREATE VIEW hr.counted AS SELECT hidden.count()`, `GRANT SELECT ON hr.counted TO me`,
		// Its names were looked up when it was made, or have their schemas.
		`CREATE FUNCTION hr.bound() RETURNS bigint LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC SELECT count(*) FROM hr.salaries; END`, `ALTER FUNCTION hr.bound() OWNER TO teller`,
		`CREATE FUNCTION hr.qualified(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ DECLARE n int; BEGIN
			n := extract(year FROM day); n := length(substring('x' FROM n)); INSERT INTO hr.salaries (id, tenant, amount) VALUES (n, 'acme', 1) ON CONFLICT (id) DO UPDATE SET amount = 1; UPDATE hr.salaries SET amount = 1 WHERE false; END $$`,
		`ALTER FUNCTION hr.qualified(date) OWNER TO teller`,
		`CREATE AGGREGATE hr.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')`,
		// The halves are for different commands, or bounded.
		`CREATE TABLE hr.halves (tenant text, open bool NOT NULL)`, `ALTER TABLE hr.halves ENABLE ROW LEVEL SECURITY`, `CREATE POLICY a ON hr.halves FOR SELECT USING (open)`, `CREATE POLICY b ON hr.halves FOR DELETE USING (NOT open)`,
		`CREATE POLICY c ON hr.halves TO teller USING (NOT open)`, `GRANT SELECT, DELETE ON hr.halves TO me`,
		// It may read what is looked up, and no more; names in comments and texts are none.
		`CREATE TABLE hr.secret (tenant text)`, `ALTER TABLE hr.secret ENABLE ROW LEVEL SECURITY`, `GRANT SELECT ON hr.secret TO me`, `CREATE POLICY d ON hr.salaries AS RESTRICTIVE USING (NOT EXISTS (SELECT FROM hr.secret s WHERE s.tenant = salaries.tenant))`,
		`CREATE FUNCTION hr.mine() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT current_setting('app.tenant', true) /* FROM hr.halves */ WHERE 'FROM halves' <> '' -- FROM halves $$`,
		`CREATE POLICY e ON hr.salaries AS RESTRICTIVE USING (tenant = hr.mine())`,
	}},
}
