// Package realpg runs private PostgreSQL clusters as child processes, for
// tests and the demonstration.
//
//	pg := realpg.Start(t, realpg.Config{
//		HBA: []string{"hostssl all all all scram-sha-256 clientcert=verify-full"},
//	})
//	pg.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'x'")
//
// A cluster lives in a directory of its own, in memory where the system has
// some, and never touches the system's. It speaks TLS with a certificate of its
// own authority ([Server.CA]), which also vouches for client certificates. The
// superuser "postgres" comes in through a socket in the private directory, with
// no password ([Server.AdminDSN]).
//
// initdb refuses to run as root, so for root the server runs as the user
// postgres, or nobody where there is none.
//
// [Find] locates the binaries. The first cluster of a version is kept in the
// cache as a template that later ones are copied from.
package realpg
