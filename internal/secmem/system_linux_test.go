package secmem_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/tamshai/phoenix/internal/secmem"
)

// The kernel itself says that a Buffer's page is locked and not dumped.
func TestPagesAreLockedAndNotDumped(t *testing.T) {
	b := secmem.New([]byte("value"))
	var flags string
	b.Use(func(value []byte) { flags = flagsAt(t, uintptr(unsafe.Pointer(&value[0]))) })
	if !strings.Contains(flags, " lo") || !strings.Contains(flags, " dd") {
		t.Errorf("VmFlags:%s", flags)
	}
	if n, err := secmem.Locked(); n < os.Getpagesize() || err != nil {
		t.Errorf("%d bytes locked: %v", n, err)
	}
}

func flagsAt(t *testing.T, address uintptr) string {
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	header := regexp.MustCompile(`^([0-9a-f]+)-([0-9a-f]+) `)
	inside := false
	for line := range bytes.Lines(data) {
		if m := header.FindSubmatch(line); m != nil {
			var from, to uintptr
			fmt.Sscanf(string(m[1])+" "+string(m[2]), "%x %x", &from, &to)
			inside = from <= address && address < to
		} else if flags, ok := bytes.CutPrefix(line, []byte("VmFlags:")); ok && inside {
			return strings.TrimSpace(string(flags)) + " "
		}
	}
	t.Fatal("no mapping has this address")
	return ""
}

// What changes the process for good runs in a child: this test binary again, as
// an ordinary user.
func TestInAChild(t *testing.T) {
	children := map[string]func(*testing.T){"unlocked": unlocked, "hardened": hardened}
	if run := children[os.Getenv("SECMEM_CHILD")]; run != nil {
		run(t)
		return
	}
	for name := range children {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInAChild$")
			cmd.Env = append(os.Environ(), "SECMEM_CHILD="+name)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func becomeOrdinary(t *testing.T) {
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			t.Fatal(err)
		}
	}
}

// Without a limit on locked memory the value is kept, and Locked says why it is
// not locked.
func unlocked(t *testing.T) {
	const memlock = 8 // RLIMIT_MEMLOCK
	if err := syscall.Setrlimit(memlock, &syscall.Rlimit{}); err != nil {
		t.Fatal(err)
	}
	becomeOrdinary(t)
	b := secmem.New([]byte("value"))
	n, err := secmem.Locked()
	if n != 0 || !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "LimitMEMLOCK") {
		t.Errorf("%d bytes locked: %v", n, err)
	}
	if got := string(b.AppendTo(nil)); got != "value" {
		t.Errorf("the Buffer holds %q", got)
	}
}

func hardened(t *testing.T) {
	becomeOrdinary(t)
	if err := secmem.Harden(); err != nil {
		t.Fatal(err)
	}
	const getDumpable = 3 // PR_GET_DUMPABLE
	dumpable, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, getDumpable, 0, 0)
	var core syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &core); err != nil || dumpable != 0 || core != (syscall.Rlimit{}) {
		t.Errorf("dumpable %d, core %+v, %v", dumpable, core, err)
	}
	if f, err := os.Open("/proc/self/mem"); err == nil {
		f.Close()
		info, _ := os.Stat("/proc/self/mem")
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
			t.Errorf("/proc/self/mem belongs to user %d: others of that user could read it", owner)
		}
	}
}
