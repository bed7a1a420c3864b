package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Host is the machine that is looked at. Each zero field means the real one.
type Host struct {
	// Root is the file system, from "/"; nil means the real one.
	Root fs.FS
	// Resolve follows the symbolic links of a path; nil means
	// filepath.EvalSymlinks.
	Resolve func(path string) (string, error)
	// LookupEnv reads a variable, Environ lists them as NAME=value; nil means
	// the process's own.
	LookupEnv func(string) (string, bool)
	Environ   func() []string
	// UID is the user; nil means the process's own.
	UID func() int
	Now func() time.Time // nil means time.Now

	LookupHost func(ctx context.Context, host string) ([]string, error)          // nil means net.DefaultResolver
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error) // nil means net.Dialer
}

func (h Host) withDefaults() Host {
	if h.Root == nil {
		h.Root = os.DirFS("/")
	}
	if h.Resolve == nil {
		h.Resolve = filepath.EvalSymlinks
	}
	if h.LookupEnv == nil {
		h.LookupEnv = os.LookupEnv
	}
	if h.Environ == nil {
		h.Environ = os.Environ
	}
	if h.UID == nil {
		h.UID = os.Getuid
	}
	if h.Now == nil {
		h.Now = time.Now
	}
	if h.LookupHost == nil {
		h.LookupHost = net.DefaultResolver.LookupHost
	}
	if h.Dial == nil {
		h.Dial = (&net.Dialer{}).DialContext
	}
	return h
}

// inRoot is a path as Root knows it.
func inRoot(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return orElse(strings.TrimPrefix(filepath.Clean(path), "/"), ".")
}

func (h Host) readFile(path string) ([]byte, error)  { return fs.ReadFile(h.Root, inRoot(path)) }
func (h Host) stat(path string) (fs.FileInfo, error) { return fs.Stat(h.Root, inRoot(path)) }
func (h Host) env(name string) string                { value, _ := h.LookupEnv(name); return value }
func owner(info fs.FileInfo) (uid int, isKnown bool) {
	if st, isKnown := info.Sys().(*syscall.Stat_t); isKnown {
		return int(st.Uid), true
	}
	return 0, false
}

// line reads a file of one line; "" if there is none.
func (h Host) line(path string) string {
	data, err := h.readFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// A mount is a line of /proc/self/mountinfo.
type mount struct {
	point, kind string
	options     []string
}

// mountOf returns what a path lies on.
func (h Host) mountOf(path string) (mount, error) {
	data, err := h.readFile("/proc/self/mountinfo")
	if err != nil {
		return mount{}, err
	}
	best := mount{}
	for line := range strings.Lines(string(data)) {
		before, after, isMount := strings.Cut(line, " - ")
		fields, more := strings.Fields(before), strings.Fields(after)
		if !isMount || len(fields) < 6 || len(more) < 3 {
			continue
		}
		m := mount{point: unescapeMount(fields[4]), kind: more[0]}
		m.options = append(strings.Split(fields[5], ","), strings.Split(more[2], ",")...)
		// Of two at one point the later lies on top.
		if contains(m.point, path) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	if best.point == "" {
		return mount{}, fmt.Errorf("no mount holds %s", path)
	}
	return best, nil
}

func contains(dir, path string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

// unescapeMount undoes the kernel's \040 for a space and the like.
func unescapeMount(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// inMemory reports whether a kind of file system keeps files in memory.
func inMemory(kind string) bool { return slices.Contains([]string{"tmpfs", "ramfs", "devtmpfs"}, kind) }

// swapsInUse lists the devices that memory is swapped to, without those that
// are memory themselves or encrypted.
func (h Host) swapsInUse() (plain, harmless []string) {
	data, err := h.readFile("/proc/swaps")
	if err != nil {
		return nil, nil
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		device := unescapeMount(fields[0])
		name := filepath.Base(device)
		switch {
		case strings.HasPrefix(name, "zram") && h.line("/sys/block/"+name+"/backing_dev") != "" && h.line("/sys/block/"+name+"/backing_dev") != "none":
			plain = append(plain, device+" (written back to "+h.line("/sys/block/"+name+"/backing_dev")+")")
		case strings.HasPrefix(name, "zram"):
			harmless = append(harmless, device+" (compressed memory)")
		case strings.HasPrefix(h.line("/sys/block/"+name+"/dm/uuid"), "CRYPT-"):
			harmless = append(harmless, device+" (encrypted)")
		default:
			plain = append(plain, device)
		}
	}
	return plain, harmless
}

func (x *exam) swap(context.Context) []Finding {
	if x.host.line("/proc/swaps") == "" {
		return []Finding{{Status: Skipped, Subject: "swap", Detail: "/proc/swaps cannot be read"}}
	}
	plain, harmless := x.host.swapsInUse()
	const group = "/sys/fs/cgroup/memory.swap.max"
	switch {
	case len(plain) == 0 && len(harmless) == 0:
		return []Finding{ok("swap", "there is none")}
	case len(plain) == 0:
		return []Finding{note("swap", "%s", strings.Join(harmless, ", "))}
	case x.host.line(group) == "0":
		return []Finding{note("swap", "the host swaps to %s; this container's limit keeps it out (memory.swap.max is 0)", strings.Join(plain, ", "))}
	}
	list := []Finding{warning("swap", "memory may be written to "+strings.Join(plain, ", ")+", and be read there by whoever gets the disk",
		"swapoff -a, or encrypt it (a swap file on an encrypted disk cannot be told from here); in a container: memswap_limit equal to mem_limit")}
	if file := x.boot.SecretIDFile; file != "" {
		if m, err := x.host.mountOf(x.host.realDir(file)); err == nil && m.kind == "tmpfs" && !slices.Contains(m.options, "noswap") {
			list = append(list, warning(m.point, "this tmpfs, where the SecretID comes, may be swapped too", "mount it with the option noswap (Linux 6.4), or swap nothing"))
		}
	}
	return list
}

// realDir is the folder of a file, without symbolic links if it exists.
func (h Host) realDir(file string) string {
	dir := filepath.Dir(file)
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if real, err := h.Resolve(dir); err == nil {
		return real
	}
	return dir
}

func (x *exam) hibernation(context.Context) []Finding {
	device := x.host.line("/sys/power/resume")
	switch {
	case !slices.Contains(strings.Fields(x.host.line("/sys/power/state")), "disk"):
		return []Finding{ok("hibernation", "the kernel offers none")}
	case device == "" || device == "0:0":
		return []Finding{ok("hibernation", "no device is set up for it")}
	}
	return []Finding{warning("hibernation", "memory may be written to the device "+device+" when the host hibernates", "systemctl mask hibernate.target hybrid-sleep.target, or boot with nohibernate")}
}

// limit returns the soft limit of a line of /proc/self/limits; -1 is unlimited.
func (h Host) limit(name string) (int64, bool) {
	data, err := h.readFile("/proc/self/limits")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		rest, isIt := strings.CutPrefix(line, name+" ")
		fields := strings.Fields(rest)
		if !isIt || len(fields) == 0 {
			continue
		}
		if fields[0] == "unlimited" {
			return -1, true
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		return n, err == nil
	}
	return 0, false
}

func (x *exam) coreDumps(context.Context) []Finding {
	limit, isKnown := x.host.limit("Max core file size")
	pattern := x.host.line("/proc/sys/kernel/core_pattern")
	handler, isPipe := strings.CutPrefix(pattern, "|")
	switch {
	case !isKnown:
		return []Finding{{Status: Skipped, Subject: "core dumps", Detail: "/proc/self/limits cannot be read"}}
	case isPipe && limit != 1: // 1 is how a process keeps itself out of pipes
		program, _, _ := strings.Cut(handler, " ")
		return []Finding{warning("core dumps", "the kernel hands them to "+program+", whatever RLIMIT_CORE says: a crash writes every secret to its store",
			"sysctl kernel.core_pattern=core, or tell the handler to store nothing (systemd: Storage=none in coredump.conf)")}
	case limit == 0:
		return []Finding{ok("core dumps", "RLIMIT_CORE is 0")}
	case isPipe:
		return []Finding{ok("core dumps", "RLIMIT_CORE is 1, which no handler takes")}
	}
	return []Finding{warning("core dumps", "RLIMIT_CORE is not 0: a crash writes every secret to a file", "ulimit -c 0; LimitCORE=0 in the unit; ulimits: {core: 0} in compose")}
}

// leastMemlock is what locking the values of some dozen secrets needs with
// room to spare: a page for each, and what the runtime keeps beside them.
const leastMemlock = 1 << 20

func (x *exam) memlock(context.Context) []Finding {
	limit, isKnown := x.host.limit("Max locked memory")
	switch {
	case !isKnown:
		return []Finding{{Status: Skipped, Subject: "RLIMIT_MEMLOCK", Detail: "/proc/self/limits cannot be read"}}
	case limit >= 0 && limit < leastMemlock:
		return []Finding{warning("RLIMIT_MEMLOCK", fmt.Sprintf("%d KiB: secrets cannot all be locked in memory, and may reach swap", limit>>10), "raise it to 8 MiB: ulimit -l 8192; LimitMEMLOCK=8M in the unit; ulimits: {memlock: 8388608} in compose")}
	case limit < 0:
		return []Finding{ok("RLIMIT_MEMLOCK", "unlimited")}
	}
	return []Finding{ok("RLIMIT_MEMLOCK", "%d KiB", limit>>10)}
}

func (x *exam) ptrace(context.Context) []Finding {
	switch scope := x.host.line("/proc/sys/kernel/yama/ptrace_scope"); scope {
	case "":
		return []Finding{note("ptrace", "the kernel has no Yama: a process may read the memory of others of its user, unless they are not dumpable")}
	case "0":
		return []Finding{warning("ptrace", "a process may read the memory of every other of its user (ptrace_scope is 0)", "sysctl kernel.yama.ptrace_scope=1, and give each service a user of its own")}
	default:
		return []Finding{ok("ptrace", "ptrace_scope is %s", scope)}
	}
}

func (x *exam) root(context.Context) []Finding {
	if uid := x.host.UID(); uid != 0 {
		return []Finding{ok("user", "runs as user %d", uid)}
	}
	return []Finding{warning("user", "this runs as root; if the service does too, a hole in it is a hole in the host", "give the service a user of its own: User= in the unit, user: in compose; and run the doctor as that user")}
}

func (x *exam) pid1(context.Context) []Finding {
	name := x.host.line("/proc/1/comm")
	// The kernel cuts these names to 15 characters.
	inits := []string{"systemd", "init", "tini", "docker-init", "dumb-init", "catatonit", "s6-svscan", "runit", "pause", "conmon", "phoenix-agent"}
	switch {
	case name == "":
		return []Finding{{Status: Skipped, Subject: "PID 1", Detail: "/proc/1/comm cannot be read"}}
	case slices.Contains(inits, name):
		return []Finding{ok("PID 1", "is %s", name)}
	}
	return []Finding{note("PID 1", "is %s, which may not reap orphans, and gets no signal that it does not handle; init: true in compose puts an init before it", name)}
}
