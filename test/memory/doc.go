// Package memory counts how often a running service's secrets stand in its
// memory. Its tests build a service as a release is built, boot it from a real
// Vault and read its memory from outside.
package memory
