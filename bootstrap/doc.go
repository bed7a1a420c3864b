// Package bootstrap trades a one-use SecretID for a Vault session.
//
// [Start] takes the SecretID that the deployment left for this service,
// verifies that it was made for it, logs in, destroys the SecretID and proves
// that it is gone, loads every declared secret and lease, and returns a
// [Session] that keeps them fresh until it is closed. A service that runs has
// everything it asked for; one that lacks anything does not start, and says
// what to do.
//
//	s, err := bootstrap.Start(ctx, bootstrap.Config{Service: "mcp-hr", Into: &cfg})
//	if err != nil {
//		return err
//	}
//	defer s.Close(ctx)
//
// # Where the SecretID comes from
//
// The first of these that is set: [Config.SecretID]; [Config.SecretIDFile];
// [Config.SealedFile]; VAULT_SECRET_ID_FILE; PHOENIX_SEALED_FILE; the
// credential "secret_id" of systemd; /run/phoenix/SERVICE.env;
// /run/secrets/SERVICE_secret_id; and, with a warning, because every child and
// /proc can read it, VAULT_<SERVICE>_SECRET_ID or VAULT_SECRET_ID.
// A file holds the SecretID alone, or lines NAME=value as "phoenix issue"
// writes them. A consumed file is removed if it can be.
//
// A value works once. If a file is named beside [Config.SecretID], that is where
// hand-overs are then waited for; for a variable it is /run/phoenix/SERVICE.env,
// if that folder exists.
//
// # When the SecretID is spent
//
// A SecretID works once. A service that restarts finds it spent, and waits,
// unready, for a new one in the same file (a hand-over); it ends with
// [ErrSecretIDSpent] only if it is told so ([Config.Spent]) or if there is no
// file to wait for. Later hand-overs move a running session to a new token:
// leases are read again under it and published, users of the old ones drain,
// and the old token is revoked.
//
// The resident issuer ("phoenix issue --watch") keeps a spare in that file,
// marked with a line PHOENIX_STANDBY=1. A session that is well leaves it there:
// it is for the next start, and for a session whose token is lost or can be
// renewed no further.
//
// # Restart tickets
//
// With [Config.TicketFile] a service restarts without a SecretID: Close returns
// the leases, wraps the session's token for a few minutes and leaves the
// wrapping token in that file, and the next Start unwraps it, renews the token
// and goes on with it. It is for planned restarts. After a crash or a reboot
// there is no ticket, and a SecretID is needed.
//
// Anybody can wrap a token, so Start takes none before Vault has said that it
// came from a login of this role. A ticket that somebody has used, that is
// forged, or that holds the token of another role is a security event, and the
// SecretID is next. The event names the token's accessor, by which an operator
// can revoke it. Start itself revokes a token of its own role that it does not
// take over, and no other.
//
// # Certificates
//
// [Config.Certs] declares certificates of Vault's PKI, and [Session.Cert] gives
// the newest of each. Every one has a new key. If a renewal fails, the last one
// stays to its end. Close revokes none: they end with their TTL.
//
// # The service's own identity
//
// [Config.Identity] declares the certificate that the service speaks mutual TLS
// with, and [Session.Identity] is what tlsconfig takes. It trusts the roots that
// are in the PKI mount [Config.Roots]: to roll the CA, add the next root there,
// let certificates be issued from under it, and delete the old one. Each session
// follows within about a minute. [Session.Issuer] makes certificates for other
// names, with the same trust, and [Session.CRLs] are where revocations show.
//
// # What is recorded
//
// Open the audit log first and give it to [Config.Audit]: attacks on the boot
// itself are then in it, and no value that the session knows can be. With
// [Config.Signer] it is signed by a key that never leaves Vault, from the first
// record: attach [Session.Signer] to it. Close the session, then the log.
//
// Each step is an [auditlog.Event]; a step that cannot be recorded fails the
// start. A SecretID that was tampered with is a security event and final.
// Restart tickets are in bootstrap.ticket.* and session.ticket.written.
package bootstrap
