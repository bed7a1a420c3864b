//go:build !goexperiment.runtimesecret

package secmem

// Erases reports whether Do erases in this build.
const Erases = false

// Do calls f. This build erases nothing; see the package documentation.
func Do(f func()) { f() }
