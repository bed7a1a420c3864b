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
//     anchored checkpoints show every change. Package auditlog/audithttp records
//     the requests of a service, and takes the events of programs that are not
//     Go; packages below auditlog/sink deliver.
//   - to speak mutual TLS that is never stale: package tlsconfig, with tlsgrpc,
//     tlsmcp and assertion below it.
//   - to use a database on leased credentials: package dbconn.
//   - to keep personal data from a model, and its prompt from its users: package
//     guard, with httpguard and mcpguard below it.
//   - to run a program that is not Go: the command cmd/phoenix-agent.
//   - to unit-test a service without Vault: package vaulttest, a double that
//     keeps state and gives the answers of real Vault.
//   - to set up Vault from a file and to issue SecretIDs: the command
//     cmd/phoenix, or package provision, which it is made of.
//
// The README says where each of them stands.
package phoenix
