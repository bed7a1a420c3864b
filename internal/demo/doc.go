// Package demo shows the main job: a fresh Vault is provisioned with a whole
// estate, services boot from one-use SecretIDs, attacks on the boot are
// refused, a secret changes under a running service, a model is kept from
// personal data and its users from its prompt, users on a database come and go
// under load, root changes an audit log and is found out, and everything comes
// back after Vault was wiped.
//
// It runs what production runs, on the double of Vault or on real Vault. A
// scene that does not turn out as it should is an error. No secret value is
// printed: the values are random, and each line is scrubbed of them besides.
//
// The file stage.go has what the scenes share, scenes.go the scenes in their
// order. To add one, append it to the list in Run.
package demo
