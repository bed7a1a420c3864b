package memory_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/memscan"
)

func TestMain(m *testing.M) { leak.Main(m) }

// The release build keeps no copy of a spent SecretID, bare or wrapped, and one
// of its token and of each value, in locked memory. That holds after the boot,
// after a new version of a secret and after a hand-over.
func TestReleaseBuild(t *testing.T) {
	f := newFixture(t)
	program := f.build("./boot", "runtimesecret")
	s := f.start(f.issue(), program, f.refs()...)
	seen := f.spent(1)
	for name, value := range f.values {
		s.holds(name, value, 1)
	}
	s.holds("the wrapping token", seen[0].wrapping, 0)
	s.holds("the SecretID", seen[0].secretID, 0)
	s.holds("the token", seen[0].token, 1)

	const changed = "secret/s3#value"
	old := f.values[changed]
	f.put(changed)
	s.holds("the new value", f.values[changed], 1)
	s.holds("the old value", old, 0)

	f.drop(f.issue())
	seen = f.spent(2)
	s.holds("the token after the hand-over", seen[1].token, 1)
	s.holds("the token before the hand-over", seen[0].token, 0)
	for _, c := range seen {
		s.holds("a wrapping token", c.wrapping, 0)
		s.holds("a SecretID", c.secretID, 0)
	}
	for name, value := range f.values {
		s.holds(name, value, 1)
	}
}

// The agent holds no more than a service, with a child that has every value in
// its environment.
func TestAgent(t *testing.T) {
	f := newFixture(t)
	args := []string{"exec", "-service", "memory", "-require-proof"}
	for i, ref := range f.refs() {
		args = append(args, "-env", fmt.Sprintf("VALUE_%d=%s", i, ref))
	}
	args = append(args, "--", "sh", "-c", "echo the child runs; exec cat")
	program := f.build("../../cmd/phoenix-agent", "runtimesecret")
	s := f.start(f.issue(), program, args...)
	seen := f.spent(1)[0]
	if os.Getuid() != 0 { // then there is nothing to count, and that is right
		if _, err := memscan.Scan(s.Process.Pid, []byte(seen.token)); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("an ordinary user reads the agent's memory: %v", err)
		}
		return
	}
	s.holds("the wrapping token", seen.wrapping, 0)
	s.holds("the SecretID", seen.secretID, 0)
	s.holds("the token", seen.token, 1)
	for name, value := range f.values {
		s.holds(name, value, 1)
	}
}

// A SecretID that comes bare is gone as well.
func TestReleaseBuildFromABareSecretID(t *testing.T) {
	f := newFixture(t)
	program := f.build("./boot", "runtimesecret")
	id := f.issueBare()
	s := f.start(id, program, f.refs()...)
	seen := f.spent(1)[0]
	s.holds("the SecretID", id, 0)
	s.holds("the token", seen.token, 1)
	for name, value := range f.values {
		s.holds(name, value, 1)
	}
}

// What a build without the experiment leaves in memory is told and not
// promised. That it finds something shows that the scan can.
func TestPlainBuild(t *testing.T) {
	f := newFixture(t)
	program := f.build("./boot", "noruntimesecret")
	s := f.start(f.issue(), program, f.refs()...)
	seen := f.spent(1)[0]
	found := s.scan(seen.wrapping, seen.secretID, seen.token, f.values["secret/s0#value"])
	t.Logf("without GOEXPERIMENT=runtimesecret, right after the boot: the wrapping token %d copies, the SecretID %d, the token %d, a value %d",
		len(found[0]), len(found[1]), len(found[2]), len(found[3]))
	for i, copies := range found {
		if len(copies) == 0 && i >= 2 {
			t.Error("the token or a value is nowhere: the scan does not see the process's memory")
		}
	}
}

// holds waits until a secret has exactly that many copies in the service's
// memory, all of them locked. What a request leaves is erased within seconds.
func (s *service) holds(name, secret string, want int) {
	s.f.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		copies := s.scan(secret)[0]
		locked := 0
		for _, c := range copies {
			if c.Locked {
				locked++
			}
		}
		if len(copies) == want && locked == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			s.f.Errorf("%s: %d copies in memory, want %d: %v", name, len(copies), want, copies)
			return
		}
	}
}

func (s *service) scan(secrets ...string) [][]memscan.Copy {
	s.f.Helper()
	var needles [][]byte
	for _, secret := range secrets {
		needles = append(needles, []byte(secret))
	}
	found, err := memscan.Scan(s.Process.Pid, needles...)
	if err != nil {
		s.f.Fatal(err)
	}
	return found
}
