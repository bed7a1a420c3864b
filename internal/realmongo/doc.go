// Package realmongo runs a server that speaks MongoDB's protocol as a child
// process, for tests.
//
//	m := realmongo.Start(t, realmongo.Config{})
//	m.AddUser(t, "app", "password")
//
// It is FerretDB 1; see test/servers/mongo for what it is and what it is not. A
// server lives in a directory of its own, in memory where the system has some. It
// speaks TLS with a certificate of
// its own authority ([Server.CA]), and demands one of its clients. Users log in
// by SCRAM-SHA-256, and are kept in the database "admin".
//
// [Find] locates the binary.
package realmongo
