// Package phoenix names the module and holds no code. Phoenix lets a service
// be wiped and rebuilt at any time and come back hardened: it trades a static
// RoleID and a one-use SecretID for a Vault session, and keeps its secrets in
// memory and fresh.
//
// Which room to use:
//
//   - to boot a Go service: package bootstrap. Its Start logs in, loads what
//     the service declared and keeps it fresh until Close.
//   - to hold and read secrets in code that knows nothing of Vault: package
//     secrets. A Secret redacts itself; Derive builds clients from it.
//   - to record who did what: package auditlog, a durable log whose signed and
//     anchored checkpoints show every change.
//   - to unit-test a service without Vault: package vaulttest, a double that
//     keeps state and gives the answers of real Vault.
//   - to set up Vault from a file and to issue SecretIDs: the command
//     cmd/phoenix, or package provision, which it is made of.
//
// Planned, and not here yet: a durable, chained audit log (auditlog), mutual
// TLS (tlsconfig), database pools on leased credentials (dbconn), redaction for
// AI gateways (guard), and an agent for containers that are not Go
// (cmd/phoenix-agent). The README says where each of them stands.
package phoenix
