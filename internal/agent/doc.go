// Package agent is the body of phoenix-agent: it boots a session, hands a
// program its secrets, and stays as the program's supervisor.
//
// A program that is written in any language gets what package bootstrap gives
// to Go services. Its secrets come in environment variables and in files on
// tmpfs, made from references and templates (package render), written
// atomically (package tmpfile). The program runs as a child (package child)
// whose environment is an allow-list and what was asked for.
//
// # The order of things
//
// Run checks everything that can be checked without Vault before it spends the
// SecretID: the configuration, the templates, the files' places, the command.
// Then it boots, and waits unready for as long as Vault is away or the
// SecretID is spent. Then it writes the files, starts the child, and follows
// changes until the child or the agent is told to end.
//
// # Changes
//
// Changes within a window act once: files are written anew, hooks are run, and
// then the child is signalled or restarted. A secret in the environment can only
// reach the child by a restart, which is therefore its default; that of a
// file is to rewrite it and no more.
//
// A child that crashes is started again under back-off, with what is in memory:
// no login is needed, and none is made.
//
// # Traffic
//
// For a program that speaks plain HTTP the agent can speak mutual TLS: package
// sidecar. It begins before the child starts. When the agent is told to end,
// what comes in is drained before the child is told; before a restart that a
// change asks for, new requests wait and those under way end.
//
// PostgreSQL gets leased credentials and verified TLS in the same way: package
// pgproxy. It serves the program until that has ended.
//
// # Where things are
//
// main.go is the command line; agent.go has the order of things. config.go says
// what can be asked for; flags.go and file.go read it; plan.go turns it into
// templates and references. inherit.go takes a SecretID out of the environment;
// deliver.go writes files and environments; watch.go collects changes; audit.go
// opens the audit log; traffic.go starts the sidecar, postgres.go the databases;
// supervise.go is the one loop that owns the child; health.go asks whether the
// child works; status.go is what probes, metrics and systemd see.
package agent
