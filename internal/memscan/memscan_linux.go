package memscan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

// A Copy is one place at which a needle was found.
type Copy struct {
	Address uint64
	Mapping string // as /proc/PID/maps names it, "" for anonymous memory
	Locked  bool   // its pages are locked into memory and left out of core dumps
}

// String tells where the copy is, not what it is.
func (c Copy) String() string {
	return fmt.Sprintf("%#x in %q, locked %v", c.Address, c.Mapping, c.Locked)
}

// mapping is a range of readable addresses.
type mapping struct {
	from, to uint64
	name     string
	locked   bool
}

// Scan looks for each needle in all memory that process pid can read, and
// returns the copies of each. The process goes on while it is read; stop it, or
// let it wait, for a count that means something.
func Scan(pid int, needles ...[]byte) ([][]Copy, error) {
	longest := 0
	for _, needle := range needles {
		if len(needle) == 0 {
			return nil, errors.New("memscan: an empty needle")
		}
		longest = max(longest, len(needle))
	}
	mappings, err := readable(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, fmt.Errorf("memscan: %w; run as root, or as the process itself", err)
	}
	defer mem.Close()
	found := make([][]Copy, len(needles))
	const step = 1 << 20
	buffer := make([]byte, step+longest-1)
	defer clear(buffer) // a process that scans itself shall not find this
	for _, m := range mappings {
		for at := m.from; at < m.to; at += step {
			n, err := mem.ReadAt(buffer[:min(uint64(len(buffer)), m.to-at)], int64(at))
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EFAULT) {
				return nil, fmt.Errorf("memscan: read %#x: %w", at, err)
			}
			for i, needle := range needles {
				for _, offset := range offsets(buffer[:n], needle) {
					if offset < step { // the rest is the next step's
						found[i] = append(found[i], Copy{at + uint64(offset), m.name, m.locked})
					}
				}
			}
		}
	}
	return found, nil
}

// offsets returns where needle stands in text.
func offsets(text, needle []byte) (all []int) {
	for from := 0; ; {
		i := bytes.Index(text[from:], needle)
		if i < 0 {
			return all
		}
		all = append(all, from+i)
		from += i + 1
	}
}

// readable returns the mappings of a process that can be read, from its smaps.
func readable(pid int) ([]mapping, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, fmt.Errorf("memscan: %w", err)
	}
	var all []mapping
	reads := false
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") { // the head of a mapping
			var m mapping
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.from, &m.to); err != nil || len(fields) < 5 {
				return nil, fmt.Errorf("memscan: /proc/%d/smaps has a line that is not understood: %q", pid, line)
			}
			m.name = strings.Join(fields[5:], " ")
			if reads = fields[1][0] == 'r' && m.name != "[vvar]" && m.name != "[vsyscall]"; reads {
				all = append(all, m)
			}
		} else if fields[0] == "VmFlags:" && reads {
			all[len(all)-1].locked = slices.Contains(fields, "lo") && slices.Contains(fields, "dd")
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("memscan: process %d has no memory; it has ended", pid)
	}
	return all, nil
}
