// Package secrets holds values that must not leak, and keeps them fresh.
//
// A [Secret] is a live handle: it shows the newest published version each time
// it is read, and "[redacted]" to fmt, slog, encoding/json and encoding/gob.
// A [Store] loads a fixed, declared set of secrets before it is handed out, so
// that a service that runs has every secret it will ever ask for; it then
// follows new versions until it is closed.
//
// Which function to use:
//
//   - to read a value on each use, keep a Secret and call [Secret.Reveal] or
//     [Secret.Bytes] where the value is spent;
//   - to fill a configuration struct, tag its fields and set [Config.Into];
//   - to build something costly from a value (a client, a key), use [Derive]
//     and [Derived.Use], which rebuild it when the value changes and close the
//     old one when nobody uses it any more;
//   - to act on changes, use [Store.Watch];
//   - for credentials that Vault makes and takes back (database users), use a
//     [LeaseSource]; [LeasesFromKV] makes one of a password in a KV secret.
//
// References are written the same everywhere, in Go, YAML and flags:
// "mount/path#field" names a field of a KV secret, "mount/creds/role" a lease.
// A mount whose own name has slashes is set off by a double slash:
// "team/kv//app#password".
//
// The package knows nothing of Vault. It reads through a [Source], which
// bootstrap implements.
package secrets
