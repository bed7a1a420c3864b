// Package vault is the only door to HashiCorp Vault: login, unwrap, renewal,
// leases, KV, and the plain reads and writes that provisioning needs.
//
// It stands on vault/api and its approle package and closes what is open in
// them: a [Client] takes nothing from the environment, sends a request once
// unless it is asked to [Client.Retry], returns errors of known classes whose
// texts are scrubbed of every secret the client has seen, and shows no token
// in any formatting verb.
//
// Two requests spend something and are never sent twice: [Client.Unwrap] and
// [Client.Login]. If such a request may have reached Vault and its answer was
// lost, the error is [ErrOutcomeUnknown] and what it would have spent has to
// be taken for spent.
package vault
