// Package pgproxy lets a program log in to PostgreSQL without a password: it
// speaks plain PostgreSQL on a Unix socket or a loopback port, and opens for each
// client a connection of its own to the server, over verified TLS, on leased
// credentials that are bound to a certificate (package dbconn).
//
// # What the client sees
//
// A server without TLS: a request for TLS or Kerberos encryption is answered with
// 'N', because the way is a socket that does not leave the machine. sslmode=prefer
// goes on, sslmode=require ends with the client's own message. The user name that
// the client gives is not used, the database must be the one that is served, and
// of the settings in the startup message those in [Settings] are passed on;
// another one, and replication, is refused. BackendKeyData holds an identifier and
// a key of the proxy's own: pg_backend_pid() is the server's, and differs.
//
// After the login bytes pass through as they are, in both directions, whatever
// their messages mean: the proxy reads types and lengths to know whether a session
// is between two transactions, and holds no message back.
//
// # One connection for each client
//
// A connection to the server ends with its client, and is not kept for the next
// one, although that would save most of what a short connection costs. It would
// take a DISCARD ALL of the proxy's own in between, and that does not give back a
// new session: what extensions and procedural languages keep in the process stays,
// and so do a library that was loaded and settings that a startup alone can make.
// Sessions kept in store would also use up max_connections and hold leases for
// nobody. A program that connects for each request wants a pool of its own.
//
// # Who may connect
//
// On a Unix socket those whom [Config.Admit] takes, by the kernel's word; its
// directory is the agent's own, of mode 0700. On TCP whoever has the secret of this
// start ([Proxy.Secret]), as a cleartext password: it opens nothing but this port,
// and only while this process has it.
//
// # Rotation
//
// With a new lease the proxy logs in once, to see that it works, and opens new
// connections with it alone. A session of the old lease ends between two
// transactions, when nothing that the client has sent is unanswered: it gets
// FATAL 57P01, which pools take as a reason to connect again, and what the client
// sends at that very moment is not passed on, so that repeating it is safe. The
// sessions end one after the other, so that a pool at work seldom finds several dead
// ones in a row: database/sql then gives a statement up, with driver.ErrBadConn and
// unsent. With [Config.Move] a session that keeps nothing but prepared statements goes
// on with the new lease instead, and the client notices nothing.
//
// A session in a transaction goes on. After [Config.DrainTimeout] those that
// are left are cut off, with FATAL 25P03 if they sat in a transaction and 08006 if
// something was running. When the last one has ended the lease is released, and
// its source can revoke it. What belongs to a session ends with it, as at a restart
// of the server: prepared statements, LISTEN, temporary tables, advisory locks.
//
// # When somebody goes
//
// A client that is gone while its statement runs has it cancelled. One that has
// closed its sending half alone gets the answers to what it has sent, for
// [Config.HalfClosed] at most; on TCP the two look the same until something is
// written. A client whose server is gone gets FATAL 08006, unless the server has
// said why itself.
package pgproxy
