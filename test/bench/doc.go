// Package bench measures Phoenix on real Vault. "make bench" runs it; what it
// found stands in BENCHMARKS.md.
//
// A benchmark of it is one long run with a fixed amount of work, not a loop
// that testing makes longer: its ns/op is the median named in BENCHMARKS.md.
// Each prints what it measured, the goal and whether the goal holds. A goal in
// time that is missed is printed; a rule that is broken (a SecretID sent twice,
// too many renewals) fails the benchmark.
//
// The sizes are flags: -pairs, -services, -storm, -stormservices, -dbrounds and
// -dbrotations.
package bench
