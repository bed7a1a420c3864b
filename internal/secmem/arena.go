package secmem

import (
	"math/bits"
	"os"
	"sync"
)

// pages is the process's arena. It is one because the system's limit on locked
// memory is one for the process.
var pages arena

// arena deals out zeroed slots of locked memory. A slot is as long as the next
// power of two. Memory is used again and never given back to the system.
type arena struct {
	mu     sync.Mutex
	free   [bits.UintSize][][]byte // by the power of two of their length
	locked int
	err    error // the first reason for which memory is not locked
}

// minClass makes the shortest slot 32 bytes.
const minClass = 5

func classOf(n int) int { return max(minClass, bits.Len(uint(n-1))) }

// take returns n zeroed bytes.
func (a *arena) take(n int) []byte {
	if n == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	class := classOf(n)
	if len(a.free[class]) == 0 {
		a.grow(class)
	}
	last := len(a.free[class]) - 1
	slot := a.free[class][last]
	a.free[class] = a.free[class][:last]
	return slot[:n]
}

// give zeroes a slot and takes it back.
func (a *arena) give(slot []byte) {
	if len(slot) == 0 {
		return
	}
	clear(slot)
	a.mu.Lock()
	defer a.mu.Unlock()
	class := classOf(len(slot))
	a.free[class] = append(a.free[class], slot[:1<<class])
}

// grow gets whole pages from the system and cuts them into slots.
func (a *arena) grow(class int) {
	size := 1 << class
	memory, locked, err := mapLocked(max(size, os.Getpagesize()))
	a.locked += locked
	if a.err == nil {
		a.err = err
	}
	for ; len(memory) >= size; memory = memory[size:] {
		a.free[class] = append(a.free[class], memory[:size:size])
	}
}

// Locked returns how many bytes are locked into memory for Buffers, and why not
// all of them are: nil if they are. What is not locked is kept all the same.
func Locked() (bytes int, err error) {
	pages.mu.Lock()
	defer pages.mu.Unlock()
	return pages.locked, pages.err
}
