//go:build goexperiment.runtimesecret

package secmem

import (
	"runtime"
	"runtime/secret"
)

// Erases reports whether Do erases in this build.
const Erases = runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")

// Do calls f. If Erases, it then erases the registers and the stack that f
// used, and what f allocated once the garbage collector finds it unreachable.
//
// It does not reach goroutines that f starts, memory that f was given, or
// buffers that f takes from a pool that others fill. What f returns should
// leave it as a Buffer.
func Do(f func()) { secret.Do(f) }
