// Package realvault runs a real HashiCorp Vault server as a child process.
//
// The tests use it to check Phoenix, and the double in package vaulttest,
// against the program they imitate. "phoenix demo --vault real" uses it too,
// so the package does not import testing.
//
// [Find] locates the binary, [Start] runs it, [StartT] is Start for tests.
// A server runs in one of two modes. [Dev] is "vault server -dev": in memory,
// unsealed, a KV version 2 store at secret/. [File] is a server as it is run
// in production: file storage, TLS, initialised and unsealed by this package.
//
// The child gets an environment of its own. None of the caller's VAULT_*
// variables reach it, and its HOME is its private directory.
package realvault
