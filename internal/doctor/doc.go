// Package doctor finds what would go wrong before it does.
//
// [Operator] looks at Vault with an operator's token and an estate: is Vault
// well, may the token do its work, is every role, policy, secret and lease as
// the services need it. [Service] looks from where one service runs, with its
// environment: does its configuration hold, can it reach Vault, is its SecretID
// there and unspoilt, does the host keep what is in memory in memory. With
// [ServiceConfig.Login] it also logs in, which spends the SecretID, and looks
// at what the token may do. All of them read: nothing in Vault is changed but
// by that login, and, with [OperatorConfig.Databases], by users that Vault makes on
// the estate's servers and takes back.
//
// # Checks
//
// A [Check] has a stable ID, like "role.period"; [Checks] is the table. What
// it finds are [Finding]s: of which thing, what is so, and what to do. The
// checks run one after the other, in the table's order, because some stand on
// what those before them found: where Vault cannot be reached, what would have
// been asked of it is [Skipped], and everything else is still looked at.
//
// # To add one
//
// Write a method of *exam that returns findings, put it into the table, give
// it a case in the tests that makes the mistake and finds it. The method takes
// the machine from exam.host and Vault from exam.read, so that both can be
// made up. A remedy is something that its reader can do: a command, a setting.
//
// Files: reach.go the way to Vault; operator.go the token and the server;
// roles.go, policy.go and estate.go what the estate needs of Vault; database.go the
// database engine and its servers; service.go
// a service's configuration and SecretID; host.go the machine; login.go the
// session.
package doctor
