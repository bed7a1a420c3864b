// Package vaulttest is a double of HashiCorp Vault for tests and
// demonstrations: a real HTTP server with real state, in memory, that answers
// as the open-source Vault 1.21.1 does, down to status codes and error texts.
//
// In a test, one line gives a Vault that is closed with the test:
//
//	v := vaulttest.New(t)
//	v.PutKV("tamshai/mcp-hr", map[string]any{"api_key": "k"})
//	roleID, secretID := v.AppRole("mcp-hr")
//	// point the code under test at v.Addr()
//
// A program that has no testing.T uses [Start]. Everything that a client can do
// over HTTP works as usual, with [Server.RootToken] for the operator's side;
// the methods of [Server] are shortcuts, and the things that no client can do:
//
//   - turn the clock: [Server.Advance] (or let testing/synctest do it, with
//     Config.InMemory);
//   - break things: [Server.Inject], [Server.Seal], [Server.SetStandby], [Server.Wipe];
//   - look inside: [Server.Requests], [Server.Tokens], [Server.Connections],
//     [Server.SecretValues].
//
// # What is imitated
//
// AppRole (with lockout) and JWT logins, tokens, response wrapping, ACL policies
// (written as JSON; there is no HCL parser here), KV versions 1 and 2, cubbyholes,
// leases whose credentials a [LeaseHandler] makes, the database engine (dynamic and
// static roles; what it does to databases are the functions of a [Database]), transit, PKI (real certificates,
// issued, revoked and listed in CRLs), and what provisioning reads and writes under
// sys/. Each behaviour is a case of package conformance, which gives the same
// answers on this double and on real Vault.
//
// Not imitated: a database engine's rotation schedules, password policies and other
// credentials than passwords; namespaces (the header is recorded, not obeyed), identity groups,
// replication, and performance. All state sits behind one lock and is kept in
// clear: this is no place for a secret that matters.
package vaulttest
