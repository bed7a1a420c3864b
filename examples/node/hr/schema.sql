CREATE TABLE employees (
	id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name     text NOT NULL,
	grade    int  NOT NULL DEFAULT 7,
	hired_by text NOT NULL,
	as_user  text NOT NULL DEFAULT session_user -- whom the database took the writer for
);
GRANT SELECT, INSERT ON employees TO tamshai_app;
