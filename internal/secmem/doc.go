// Package secmem keeps secrets out of memory that outlives their use. It is the
// one place of the house that knows how:
//
//   - [New] copies bytes into a [Buffer]: a page that is locked into memory and
//     left out of core dumps, zeroed when the Buffer is wiped or unreachable;
//   - [Do] runs a function and erases what it leaves on its stack and heap;
//   - [Collect] makes the garbage collector erase now what Do would have
//     erased some time;
//   - [Harden] makes the process unreadable for its own user and without core
//     dumps.
//
// None of it stops root, a debugger that was attached before, or code in the
// process itself. Do erases in builds with GOEXPERIMENT=runtimesecret alone,
// see [Erases]; locked pages and Harden exist on Linux alone. Everywhere else
// the same code runs and protects less.
package secmem
