// Package spiffe compares package tlsconfig with go-spiffe: where each accepts a
// peer that it should refuse, and what a handshake costs. It is a module of its
// own, so that go-spiffe is no dependency of Phoenix. "make bench BENCH=Spiffe"
// runs it; what it found stands in BENCHMARKS.md.
package spiffe
