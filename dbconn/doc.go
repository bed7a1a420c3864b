// Package dbconn keeps pools of PostgreSQL connections whose credentials are
// leased, change every few hours, and take no query with them when they do.
//
// [Open] returns a [DB], which has the methods of a pgxpool.Pool:
//
//	db, err := dbconn.Open(ctx, dbconn.Config{
//		Addr: "postgres:5432", Database: "tamshai_hr",
//		Leases: session.Leases("database/creds/mcp-hr"), Certs: session.Issuer(),
//	})
//	defer db.Close(ctx)
//	_, err = db.Exec(ctx, "UPDATE …")
//
// Which function to use:
//
//   - for dynamic credentials and static roles of Vault, take the session's
//     LeaseSource; for a password in a KV secret, [FromKV];
//   - for row-level security that reads who is asking from settings, name them in
//     [Config.Settings] and call [WithSettings];
//   - for database/sql, [DB.SQL];
//   - for LISTEN, [DB.Listen], which goes along with a rotation;
//   - for a proxy, which speaks the protocol itself, [Login];
//   - for a connection string that somebody else wrote, [ParseDSN];
//   - to find roles that walk around row-level security, [Posture], and
//     [PostureConfig.Admit] to keep them out.
//
// # What a connection is
//
// TLS 1.3, verified in full: the chain and the server's name. There is no other
// mode, no fallback and no Unix socket. Passwords go by SCRAM alone, bound to the
// TLS channel, so that a server in the middle cannot pass them on. With
// [Config.Certs] each user also shows a certificate with its own name, so that a
// server that says "scram-sha-256 clientcert=verify-full" in pg_hba.conf takes a
// stolen password from nobody else. No PG* variable of the environment counts.
//
// # Rotation
//
// When the source publishes a new lease, DB logs in with it, asks [Config.Admit],
// opens as many connections as the old pool has, and only then sends new work to
// them. The old pool drains: each connection is closed when its user is done, and
// the old lease is released when the last one is closed, which lets the source
// revoke it. What is still busy after [Config.DrainTimeout] is cut off. If any step
// fails, the old lease stays in use; an event and the log say why, and DB tries again.
//
// Two pools exist for that time: the server must have room for twice
// [Config.MaxConns], and Open checks that it has.
//
// # Errors
//
// What goes wrong with a connection is an [*Error], whose Kind is one of [ErrConfig],
// [ErrInsecure], [ErrRefused], [ErrAdmit], [ErrFull], [ErrUnavailable], [ErrSettings]
// and [ErrClosed], for errors.Is. What a statement ran into is pgx's own error, such
// as *pgconn.PgError, without the values that Config.Scrubber knows and the password.
//
// DB sends a statement again only when it is known not to have run: nothing was sent,
// or the server refused it because the role had been dropped. A BEGIN is sent again on
// any broken connection. A statement that was on its way when its connection broke is
// never repeated: nobody knows whether it ran.
//
//	PostgreSQL stopped    ErrUnavailable at once; the statements under way fail with
//	                      SQLSTATE 57P01 or a network error; no restart is needed after
//	failed over           the same, then [Config.Addr]'s next host; a server that has
//	                      become a standby loses its connections at their first refused write
//	out of connections    ErrFull for a new connection; those that are open go on
//	Vault away            nothing, while the lease lives
//	lease revoked early   a new lease is asked for, once, before the work goes on: new
//	                      transactions and statements by themselves see nothing of it where
//	                      sessions were left alive; where they were ended, a statement on a
//	                      dead one fails as when PostgreSQL stopped. Without a new lease,
//	                      ErrRefused, at once for some seconds, to spare Vault and server
package dbconn
