// Package memscan counts copies of secrets in a process's memory, for tests. It
// needs Linux, and the right to read /proc/PID/mem: root's, or the process's
// own.
package memscan
