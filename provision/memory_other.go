//go:build !linux

package provision

// inMemory reports that nothing is known to be in memory.
func inMemory(string) (bool, error) { return false, nil }
