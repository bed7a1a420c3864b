package doctor_test

import (
	"context"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/doctor"
)

const (
	limits  = "Limit                     Soft Limit           Hard Limit           Units\nMax core file size        CORE                    unlimited            bytes\nMax locked memory         LOCK              8388608              bytes\n"
	mounts  = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 0:5 / /run rw,nosuid - tmpfs tmpfs rw,size=1024k,mode=755\n24 23 0:6 / /run/my\\040app rw,nosuid - tmpfs tmpfs rw,noswap\n"
	noSwaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }

// machine is the file system of a machine on which nothing is wrong, with some
// files changed; a nil file is missing.
func machine(changes fstest.MapFS) fs.FS {
	files := fstest.MapFS{
		"proc/swaps":                        file(noSwaps),
		"proc/self/limits":                  file(strings.NewReplacer("CORE", "0", "LOCK", "8388608").Replace(limits)),
		"proc/self/mountinfo":               file(mounts),
		"proc/sys/kernel/core_pattern":      file("core\n"),
		"proc/sys/kernel/yama/ptrace_scope": file("1\n"),
		"proc/1/comm":                       file("tini\n"),
		"sys/power/state":                   file("freeze mem disk\n"),
		"sys/power/resume":                  file("0:0\n"),
	}
	maps.Copy(files, changes)
	for name, f := range files {
		if f == nil {
			delete(files, name)
		}
	}
	return over{files, os.DirFS("/")}
}

// refusing is a network on which nobody listens.
func refusing(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

// TestHost gives a service one machine after the other.
func TestHost(t *testing.T) {
	zram := noSwaps + "/dev/zram0 partition 1024 0 100\n"
	disk := noSwaps + "/dev/sda2                               partition\t1024\t0\t-2\n"
	for _, tt := range []struct {
		name   string
		files  fstest.MapFS
		check  string
		status doctor.Status
		part   string
	}{
		{"no swap", nil, "host.swap", doctor.OK, "there is none"},
		{"swap on a disk", fstest.MapFS{"proc/swaps": file(disk)}, "host.swap", doctor.Warning, "/dev/sda2"},
		{"swap that the tmpfs can reach", fstest.MapFS{"proc/swaps": file(disk)}, "host.swap", doctor.Warning, "/run: this tmpfs, where the SecretID comes"},
		{"swap that the container may not use", fstest.MapFS{"proc/swaps": file(disk), "sys/fs/cgroup/memory.swap.max": file("0\n")}, "host.swap", doctor.Note, "keeps it out"},
		{"swap in compressed memory", fstest.MapFS{"proc/swaps": file(zram)}, "host.swap", doctor.Note, "compressed memory"},
		{"compressed memory that is written back", fstest.MapFS{"proc/swaps": file(zram), "sys/block/zram0/backing_dev": file("/dev/sdb\n")}, "host.swap", doctor.Warning, "written back to /dev/sdb"},
		{"encrypted swap", fstest.MapFS{"proc/swaps": file(noSwaps + "/dev/dm-1 partition 1024 0 -2\n"), "sys/block/dm-1/dm/uuid": file("CRYPT-PLAIN-swap\n")}, "host.swap", doctor.Note, "encrypted"},
		{"a mapped device that is not encrypted", fstest.MapFS{"proc/swaps": file(noSwaps + "/dev/dm-1 partition 1024 0 -2\n"), "sys/block/dm-1/dm/uuid": file("LVM-x\n")}, "host.swap", doctor.Warning, "/dev/dm-1"},
		{"no list of swaps", fstest.MapFS{"proc/swaps": nil}, "host.swap", doctor.Skipped, "cannot be read"},

		{"hibernation not set up", nil, "host.hibernation", doctor.OK, "no device"},
		{"hibernation", fstest.MapFS{"sys/power/resume": file("8:2\n")}, "host.hibernation", doctor.Warning, "8:2"},
		{"no hibernation", fstest.MapFS{"sys/power/state": file("freeze mem\n")}, "host.hibernation", doctor.OK, "offers none"},

		{"no core dumps", nil, "host.core", doctor.OK, "RLIMIT_CORE is 0"},
		{"core dumps", fstest.MapFS{"proc/self/limits": file(strings.ReplaceAll(limits, "CORE", "unlimited"))}, "host.core", doctor.Warning, "LimitCORE=0"},
		{"core dumps into a pipe", fstest.MapFS{"proc/sys/kernel/core_pattern": file("|/usr/lib/systemd/systemd-coredump %P\n")}, "host.core", doctor.Warning, "systemd-coredump, whatever RLIMIT_CORE says"},
		{"no core dumps into a pipe", fstest.MapFS{"proc/sys/kernel/core_pattern": file("|/x\n"), "proc/self/limits": file(strings.ReplaceAll(limits, "CORE", "1"))}, "host.core", doctor.OK, "no handler takes"},
		{"no limits", fstest.MapFS{"proc/self/limits": nil}, "host.core", doctor.Skipped, "cannot be read"},

		{"enough locked memory", nil, "host.memlock", doctor.OK, "8192 KiB"},
		{"little locked memory", fstest.MapFS{"proc/self/limits": file(strings.ReplaceAll(limits, "LOCK", "65536"))}, "host.memlock", doctor.Warning, "64 KiB"},
		{"any locked memory", fstest.MapFS{"proc/self/limits": file(strings.ReplaceAll(limits, "LOCK", "unlimited"))}, "host.memlock", doctor.OK, "unlimited"},
		{"no limit of locked memory", fstest.MapFS{"proc/self/limits": nil}, "host.memlock", doctor.Skipped, "cannot be read"},

		{"ptrace", nil, "host.ptrace", doctor.OK, "1"},
		{"open ptrace", fstest.MapFS{"proc/sys/kernel/yama/ptrace_scope": file("0\n")}, "host.ptrace", doctor.Warning, "ptrace_scope is 0"},
		{"no Yama", fstest.MapFS{"proc/sys/kernel/yama/ptrace_scope": nil}, "host.ptrace", doctor.Note, "Yama"},

		{"an init", nil, "host.pid1", doctor.OK, "tini"},
		{"no init", fstest.MapFS{"proc/1/comm": file("node\n")}, "host.pid1", doctor.Note, "is node"},
		{"no PID 1 to be seen", fstest.MapFS{"proc/1/comm": nil}, "host.pid1", doctor.Skipped, "cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := healthy(map[string]string{"VAULT_ADDR": "https://127.0.0.1:8200", "VAULT_SECRET_ID_FILE": "/run/phoenix/web.env"})
			host.Root, host.Dial = machine(tt.files), refusing
			want(t, kept(doctor.Service(t.Context(), doctor.ServiceConfig{Service: bootstrap.Config{Service: "web"}, Host: host})), tt.check, tt.status, tt.part)
		})
	}
}

func TestRoot(t *testing.T) {
	host := healthy(nil)
	host.Dial, host.UID = refusing, func() int { return 0 }
	want(t, doctor.Service(t.Context(), doctor.ServiceConfig{Service: bootstrap.Config{Service: "web"}, Host: host}), "host.root", doctor.Warning, "User=")
}

// TestSecretIDFile looks at a file that is there, with other modes, owners and
// mounts than it has.
func TestSecretIDFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.env")
	const value = "s3cr3t-0000-bare"
	hidden.add(value)
	if err := os.WriteFile(path, []byte("VAULT_WEB_ROLE_ID=r\nVAULT_WEB_SECRET_ID="+value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	entry := func(mode fs.FileMode, uid uint32) *fstest.MapFile {
		return &fstest.MapFile{Mode: mode, Sys: &syscall.Stat_t{Uid: uid}}
	}
	on := func(kind string) *fstest.MapFile {
		return file(mounts + "25 22 0:9 / " + dir + " rw - " + kind + " x rw,noswap\n")
	}
	in := func(path string) string { return strings.TrimPrefix(path, "/") }
	for _, tt := range []struct {
		name   string
		files  fstest.MapFS
		check  string
		status doctor.Status
		part   string
	}{
		{"mine alone", nil, "secretid.mode", doctor.OK, "for this user alone"},
		{"the group's too", fstest.MapFS{in(path): entry(0o640, 1001)}, "secretid.mode", doctor.Problem, "chmod 0600 " + path},
		{"another's", fstest.MapFS{in(path): entry(0o600, 1002)}, "secretid.mode", doctor.Problem, "chown 1001"},
		{"root's", fstest.MapFS{in(path): entry(0o600, 0)}, "secretid.mode", doctor.OK, "for this user alone"},
		{"in an open folder", fstest.MapFS{in(dir): entry(fs.ModeDir|0o777, 1001)}, "secretid.mode", doctor.Problem, "chmod go-w " + dir},
		{"in an open folder that is sticky", fstest.MapFS{in(dir): entry(fs.ModeDir|fs.ModeSticky|0o777, 1001)}, "secretid.mode", doctor.OK, "for this user alone"},
		{"in root's folder", fstest.MapFS{in(dir): entry(fs.ModeDir|0o755, 0)}, "secretid.mode", doctor.Note, "may not be able to remove"},
		{"in memory", fstest.MapFS{"proc/self/mountinfo": on("tmpfs")}, "secretid.tmpfs", doctor.OK, "tmpfs at " + dir},
		{"on a disk", fstest.MapFS{"proc/self/mountinfo": on("ext4")}, "secretid.tmpfs", doctor.Warning, "ext4"},
		{"nobody knows where", fstest.MapFS{"proc/self/mountinfo": nil}, "secretid.tmpfs", doctor.Skipped, "does not exist"},
		{"swap does not reach it", fstest.MapFS{"proc/self/mountinfo": on("tmpfs"), "proc/swaps": file(noSwaps + "/dev/sda2 partition 1 0 -2\n")}, "host.swap", doctor.Warning, "/dev/sda2"},
		{"not wrapped", nil, "secretid.wrapped", doctor.Warning, "is not wrapped"},
		{"there", nil, "secretid.present", doctor.OK, path},
		{"with the RoleID", nil, "config.role_id", doctor.OK, "is there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := fstest.MapFS{
				in(path): entry(0o600, 1001), in(dir): entry(fs.ModeDir|0o700, 1001), "proc/self/mountinfo": on("tmpfs"),
			}
			maps.Copy(files, tt.files)
			host := healthy(map[string]string{"VAULT_ADDR": "https://127.0.0.1:8200", "VAULT_SECRET_ID_FILE": path})
			host.Root, host.Dial = machine(files), refusing
			r := kept(doctor.Service(t.Context(), doctor.ServiceConfig{Service: bootstrap.Config{Service: "web"}, Host: host}))
			want(t, r, tt.check, tt.status, tt.part)
			if tt.name == "swap does not reach it" {
				for _, f := range r.Findings {
					if strings.Contains(f.Detail, "this tmpfs") {
						t.Errorf("a tmpfs with noswap: %+v", f)
					}
				}
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	const addr = "VAULT_ADDR=https://vault.example:8200"
	for _, tt := range []struct {
		name   string
		env    []string
		check  string
		status doctor.Status
		part   string
	}{
		{"names, no values", []string{addr, "VAULT_NAMESPACE=s3cr3t"}, "config.env", doctor.OK, "found: VAULT_ADDR, VAULT_NAMESPACE"},
		{"no address", nil, "vault.address", doctor.Problem, "set VAULT_ADDR"},
		{"no URL", []string{"VAULT_ADDR=vault:8200"}, "vault.address", doctor.Problem, "https://vault:8200"},
		{"in the clear", []string{"VAULT_ADDR=http://vault:8200"}, "vault.address", doctor.Problem, "in the clear"},
		{"in the clear at home", []string{"VAULT_ADDR=http://127.0.0.1:8200"}, "vault.address", doctor.Note, "loopback"},
		{"no verification", []string{addr, "VAULT_SKIP_VERIFY=1"}, "config.skip_verify", doctor.Problem, "unset it"},
		{"no verification, and the rest is looked at", []string{addr, "VAULT_SKIP_VERIFY=1"}, "vault.tcp", doctor.Problem, "refused"},
		{"verification, said twice", []string{addr, "VAULT_SKIP_VERIFY=false"}, "config.skip_verify", doctor.Note, "false"},
		{"verification, malformed", []string{addr, "VAULT_SKIP_VERIFY=maybe"}, "config.skip_verify", doctor.Problem, "malformed"},
		{"a timeout that is none", []string{addr, "VAULT_CLIENT_TIMEOUT=soon"}, "config.env", doctor.Problem, "VAULT_CLIENT_TIMEOUT"},
		{"half a certificate", []string{addr, "VAULT_CLIENT_KEY=/k"}, "config.env", doctor.Problem, "half a client certificate"},
		{"two mistakes at once", []string{addr, "VAULT_CLIENT_KEY=/k", "VAULT_CLIENT_TIMEOUT=-1s"}, "config.env", doctor.Problem, "VAULT_CLIENT_TIMEOUT"},
		{"a RoleID with a space", []string{addr, "VAULT_WEB_ROLE_ID=a b"}, "config.env", doctor.Problem, "RoleID holds a space"},
		{"a configuration that does not hold", []string{addr, "VAULT_WEB_ROLE_ID=a b"}, "vault.address", doctor.Skipped, "does not hold"},
		{"no RoleID", []string{addr, "VAULT_SECRET_ID=s3cr3t-bare"}, "config.role_id", doctor.Problem, "VAULT_WEB_ROLE_ID"},
		{"a token", []string{addr, "VAULT_TOKEN=s3cr3t-token"}, "config.token", doctor.Warning, "every child has it"},
		{"no token", []string{addr}, "config.token", doctor.OK, "not set"},
		{"no SecretID", []string{addr}, "secretid.present", doctor.Problem, "does not start"},
		{"no SecretID yet", []string{addr, "VAULT_SECRET_ID_FILE=/nowhere/web.env"}, "secretid.present", doctor.Problem, "phoenix issue --service web --out /nowhere/web.env"},
		{"a folder for a SecretID", []string{addr, "VAULT_SECRET_ID_FILE=/"}, "secretid.present", doctor.Problem, "not a regular file"},
		{"a SecretID in the environment", []string{addr, "VAULT_WEB_SECRET_ID=s3cr3t-bare"}, "secretid.env", doctor.Warning, "/proc shows it"},
		{"a proxy", []string{addr, "HTTPS_PROXY=http://user:s3cr3t@proxy:3128"}, "config.proxy", doctor.Warning, "add vault.example to NO_PROXY"},
		{"a proxy for all", []string{addr, "all_proxy=socks5://proxy"}, "config.proxy", doctor.Warning, "Phoenix ignores it"},
		{"a proxy, not for Vault", []string{addr, "HTTPS_PROXY=http://proxy", "NO_PROXY=localhost, .example"}, "config.proxy", doctor.Note, "exempts"},
		{"a proxy, not for Vault's port", []string{addr, "HTTPS_PROXY=http://proxy", "NO_PROXY=vault.example:8200"}, "config.proxy", doctor.Note, "exempts"},
		{"a proxy, not for Vault's network", []string{"VAULT_ADDR=https://10.1.2.3:8200", "https_proxy=http://proxy", "no_proxy=10.0.0.0/8"}, "config.proxy", doctor.Note, "exempts"},
		{"a proxy, for names that only look alike", []string{addr, "HTTPS_PROXY=http://proxy", "NO_PROXY=other-vault.example,ample"}, "config.proxy", doctor.Warning, "add vault.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hidden.add("s3cr3t")
			env := map[string]string{}
			for _, entry := range tt.env {
				name, value, _ := strings.Cut(entry, "=")
				env[name] = value
			}
			host := healthy(env)
			host.Dial = refusing
			host.LookupHost = func(context.Context, string) ([]string, error) { return []string{"10.0.0.9"}, nil }
			want(t, kept(doctor.Service(t.Context(), doctor.ServiceConfig{Service: bootstrap.Config{Service: "web"}, Host: host})), tt.check, tt.status, tt.part)
		})
	}
}
