package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/secmem"
	"github.com/tamshai/phoenix/secrets"
)

// bootFD names the pipe that a SecretID from the environment came through.
const bootFD = "PHOENIX_BOOT_FD"

// secretIDName matches the variables that may hold a SecretID, this service's
// or another's.
var secretIDName = regexp.MustCompile(`^VAULT_([A-Z0-9_]+_)?SECRET_ID$`)

// An inherited SecretID is one that came in the environment.
type inherited struct {
	name  string // of the variable; "" if there was none
	value secrets.Secret
}

// takeSecretID takes the service's SecretID out of the environment.
//
// A variable stays readable in /proc for as long as its process lives, even
// after it is unset, and Go's runtime has a copy of it. So the agent replaces
// itself: it puts the SecretID into a pipe and executes itself again, with the
// same arguments and process identifier and without the variable.
func takeSecretID(args []string, service string) (inherited, error) {
	if text, ok := os.LookupEnv(bootFD); ok {
		return fromPipe(text)
	}
	var env []string
	found := false
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); secretIDName.MatchString(name) {
			found = found || value != ""
			continue
		}
		env = append(env, entry)
	}
	if !found {
		return inherited{}, nil
	}
	// Other services' SecretIDs are dropped: they are none of our business.
	line := ""
	for _, name := range []string{bootstrap.EnvName(service, "SECRET_ID"), "VAULT_SECRET_ID"} {
		if value := os.Getenv(name); value != "" && line == "" {
			line = name + "=" + value
		}
	}
	if len(line) > pipeRoom {
		return inherited{}, usage("the SecretID in the environment is longer than any SecretID")
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], 0); err != nil {
		return inherited{}, err
	}
	if _, err := unix.Write(ends[1], []byte(line)); err != nil {
		return inherited{}, err
	}
	_ = unix.Close(ends[1])
	env = append(env, bootFD+"="+strconv.Itoa(ends[0]))
	err := syscall.Exec("/proc/self/exe", args, env)
	return inherited{}, fmt.Errorf("the SecretID is in the environment, and the agent cannot execute itself to hide it: %w; put it into a file and name that in VAULT_SECRET_ID_FILE", err)
}

// pipeRoom is what a pipe surely takes before anybody reads, in bytes.
const pipeRoom = 4096

func fromPipe(text string) (inherited, error) {
	foreign := usage("%s is the agent's own; unset it", bootFD)
	_ = os.Unsetenv(bootFD)
	fd, err := strconv.Atoi(text)
	var st unix.Stat_t
	if err != nil || fd < 3 || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return inherited{}, foreign
	}
	f := os.NewFile(uintptr(fd), "boot")
	defer f.Close()
	var in inherited
	secmem.Do(func() {
		buf := make([]byte, pipeRoom)
		var n int
		if n, err = io.ReadFull(f, buf); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = nil
		}
		if name, value, ok := bytes.Cut(buf[:n], []byte("=")); ok {
			in = inherited{strings.Clone(string(name)), secrets.New(value)}
		}
	})
	return in, err
}

// fill puts an inherited SecretID where bootstrap would have found it: behind
// every file.
func (in inherited) fill(b bootstrap.Config) (full bootstrap.Config, err error) {
	secmem.Do(func() {
		b.LookupEnv = func(name string) (string, bool) {
			if name == in.name && name != "" {
				return in.value.Reveal(), true
			}
			return os.LookupEnv(name)
		}
		full, err = bootstrap.FromEnv(b)
	})
	full.LookupEnv = nil
	return full, err
}
