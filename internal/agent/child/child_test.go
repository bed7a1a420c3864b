package child_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tamshai/phoenix/internal/agent/child"
	"github.com/tamshai/phoenix/internal/leak"
)

// The test binary is also the programs that it runs: what this variable names.
const modeName = "CHILD_TEST_MODE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeName); mode != "" {
		modes[mode]()
		os.Exit(0)
	}
	leak.Main(m)
}

func Example() {
	runner := child.New()
	defer runner.Close()
	path, err := child.Find("sh", "/usr/bin:/bin")
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := runner.Start(child.Spec{
		Path: path, Args: []string{"sh", "-c", `test "$GREETING" = hello && exit 7`},
		Env:   func() ([]string, error) { return []string{"GREETING=hello"}, nil },
		Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-p.Done()
	fmt.Println(p.Code(), p.Ending())
	// Output: 7 ended with code 7
}

func newRunner(t *testing.T) *child.Runner {
	t.Helper()
	r := child.New()
	t.Cleanup(r.Close)
	return r
}

// self is this binary in one of its modes.
func self(t *testing.T, mode string) child.Spec {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return child.Spec{Path: exe, Args: []string{mode}, Env: func() ([]string, error) { return []string{modeName + "=" + mode}, nil }}
}

func shell(script string) child.Spec {
	return child.Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", script},
		Env: func() ([]string, error) { return []string{"PATH=/usr/bin:/bin"}, nil },
	}
}

// A running program with pipes to its input and output.
type running struct {
	*child.Process
	in  *os.File
	out *bufio.Reader
}

func start(t *testing.T, r *child.Runner, spec child.Spec) running {
	t.Helper()
	inR, in := pipe(t)
	out, outW := pipe(t)
	spec.Files = [3]*os.File{inR, outW, os.Stderr}
	p, err := r.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	return running{p, in, bufio.NewReader(out)}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func (p running) line(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// code waits for the program's end.
func (p running) code(t *testing.T) int {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(3 * time.Minute):
		t.Fatal("the program does not end")
	}
	return p.Code()
}

// until waits for what only the kernel knows, and tells nobody.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

// stat returns a field of /proc/PID/stat, counted as in proc(5), and "" if
// there is no such process.
func stat(pid string, field int) string {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(data), ") ")
	return strings.Fields(after)[field-3]
}

func TestCodes(t *testing.T) {
	r := newRunner(t)
	for _, c := range []struct {
		script string
		code   int
		ending string
	}{
		{"exit 0", 0, "ended with code 0"},
		{"exit 7", 7, "ended with code 7"},
		{"exit 255", 255, "ended with code 255"},
		{"kill -TERM $$", 143, "ended by SIGTERM"},
		{"kill -KILL $$", 137, "ended by SIGKILL"},
		{"kill -USR1 $$", 138, "ended by SIGUSR1"},
	} {
		before := time.Now()
		p := start(t, r, shell(c.script))
		if code := p.code(t); code != c.code || p.Ending() != c.ending {
			t.Errorf("%s: %d, %s", c.script, code, p.Ending())
		}
		if p.Began().Before(before) || p.Began().After(time.Now()) {
			t.Errorf("%s: began at %v", c.script, p.Began())
		}
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCannotStart(t *testing.T) {
	dir := t.TempDir()
	r := newRunner(t)
	large := func() ([]string, error) { return []string{"SECRET=" + strings.Repeat("hunter2", 1<<19)}, nil }
	for name, c := range map[string]struct {
		path string
		env  func() ([]string, error)
		code int
		want string
		is   error
	}{
		"missing":        {dir + "/none", nil, 127, `there is no program "prog"; give its path, or check PATH`, os.ErrNotExist},
		"not executable": {write(t, dir+"/data", "#!/bin/sh\n", 0o644), nil, 126, "check its mode", os.ErrPermission},
		"a folder":       {dir, nil, 126, "may not be executed", os.ErrPermission},
		"no format":      {write(t, dir+"/text", "echo hello\n", 0o755), nil, 126, "a first line like #!/bin/sh", syscall.ENOEXEC},
		"no interpreter": {write(t, dir+"/script", "#!/no/such/shell\n", 0o755), nil, 127, "not the interpreter or loader", os.ErrNotExist},
		"too large":      {"/bin/sh", large, 126, "hand the large ones over in files", syscall.E2BIG},
	} {
		t.Run(name, func(t *testing.T) {
			spec := shell("")
			spec.Path, spec.Args = c.path, []string{"prog"}
			if c.env != nil {
				spec.Env = c.env
			}
			p, err := r.Start(spec)
			var start *child.StartError
			if !errors.As(err, &start) || p != nil {
				t.Fatalf("%v, %v", p, err)
			}
			if start.Code() != c.code || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.is) || start.Name != "prog" {
				t.Errorf("%d: %v", start.Code(), err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error shows the environment")
			}
		})
	}
}

// An environment that cannot be made is no start, and its error is kept.
func TestEnvironmentFails(t *testing.T) {
	r := newRunner(t)
	reason := errors.New("there is no lease")
	spec := shell("")
	spec.Env = func() ([]string, error) { return nil, reason }
	if p, err := r.Start(spec); p != nil || !errors.Is(err, reason) {
		t.Errorf("%v, %v", p, err)
	}
}

func environ() { fmt.Printf("%q\n", os.Environ()) }

// A program gets what it is given, and nothing of the agent's.
func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("VAULT_SECRET_ID", "hunter2")
	r := newRunner(t)
	spec := self(t, "environ")
	env := []string{modeName + "=environ", "A=1", "EMPTY=", "LINES=a\nb = c", "BYTES=\xff"}
	spec.Env = func() ([]string, error) { return env, nil }
	p := start(t, r, spec)
	if got, want := p.line(t), fmt.Sprintf("%q", env); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	spec = child.Spec{Path: "/usr/bin/env", Args: []string{"env"}, Env: func() ([]string, error) { return nil, nil }}
	p = start(t, r, spec)
	if got, _ := io.ReadAll(p.out); len(got) != 0 {
		t.Errorf("no environment became %q", got)
	}
}

// What makes the environment runs within Around, and so does the fork.
func TestAround(t *testing.T) {
	r := newRunner(t)
	var order []string
	spec := shell("exit 3")
	env := spec.Env
	spec.Env = func() ([]string, error) { order = append(order, "env"); return env() }
	spec.Around = func(f func()) { order = append(order, "before"); f(); order = append(order, "after") }
	p := start(t, r, spec)
	if !slices.Equal(order, []string{"before", "env", "after"}) || p.code(t) != 3 {
		t.Error(order)
	}
}

func TestGroupIsKilled(t *testing.T) {
	r := newRunner(t)
	p := start(t, r, shell(`sh -c 'sleep 1000 & echo up; wait' & sleep 1000`))
	if p.line(t) != "up" {
		t.Fatal("no grandchild")
	}
	if pgrp := stat(strconv.Itoa(p.PID()), 5); pgrp != strconv.Itoa(p.PID()) {
		t.Errorf("its group is %s, not its own", pgrp)
	}
	if !p.SignalGroup(syscall.SIGKILL) {
		t.Error("nothing was there")
	}
	// The pipe ends when the last of them has.
	if rest, err := io.ReadAll(p.out); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if code := p.code(t); code != 137 {
		t.Error(code)
	}
	until(t, "the group is empty", func() bool { return !p.SignalGroup(0) })
	if p.SignalGroup(syscall.SIGKILL) {
		t.Error("an ended group came back")
	}
}

// What is left of a group whose leader has ended is still reached.
func TestGroupWithoutLeader(t *testing.T) {
	r := newRunner(t)
	p := start(t, r, shell(`sleep 1000 & exit 5`))
	if code := p.code(t); code != 5 {
		t.Error(code)
	}
	if !p.SignalGroup(syscall.SIGTERM) {
		t.Error("nothing was left")
	}
	if _, err := io.ReadAll(p.out); err != nil {
		t.Error(err)
	}
	until(t, "the group is empty", func() bool { return !p.SignalGroup(0) })
}

// An orphan becomes the agent's, and no zombie stays of it.
func TestOrphansAreReaped(t *testing.T) {
	r := newRunner(t)
	p := start(t, r, shell(`exec 3<&0; (read line <&3; exit 9) & echo $!; exit 4`))
	orphan := p.line(t)
	if code := p.code(t); code != 4 {
		t.Error(code)
	}
	if parent := stat(orphan, 4); parent != strconv.Itoa(os.Getpid()) {
		t.Errorf("the orphan's parent is %s", parent)
	}
	p.in.Close()
	until(t, "the orphan is reaped", func() bool { return stat(orphan, 3) == "" })
}

// What has ended before there was a Runner is reaped as well.
func TestEarlierZombieIsReaped(t *testing.T) {
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "exit 0"}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it is a zombie", func() bool { return stat(strconv.Itoa(pid), 3) == "Z" })
	newRunner(t)
	until(t, "it is reaped", func() bool { return stat(strconv.Itoa(pid), 3) == "" })
}

// However many programs and orphans end at once, each gets its own status.
func TestNoStatusIsStolen(t *testing.T) {
	r := newRunner(t)
	const workers, each = 8, 40
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				want := (w*each + i) % 200
				spec := shell(fmt.Sprintf("(exit 201) & (exit 202) & exit %d", want))
				p, err := r.Start(spec)
				if err != nil {
					t.Error(err)
					return
				}
				<-p.Done()
				if p.Code() != want {
					t.Errorf("%d instead of %d", p.Code(), want)
				}
			}
		})
	}
	wg.Wait()
	until(t, "no child is left", func() bool {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		return errors.Is(err, syscall.ECHILD)
	})
}

// agent runs one program until it is killed.
func agent() {
	r := child.New()
	spec := shell(`echo up; exec sleep 1000`)
	spec.Files = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	p, err := r.Start(spec)
	if err != nil {
		fmt.Println(err)
		return
	}
	<-p.Done()
}

func TestProgramDiesWithAgent(t *testing.T) {
	r := newRunner(t)
	p := start(t, r, self(t, "agent"))
	if got := p.line(t); got != "up" {
		t.Fatal(got)
	}
	p.Signal(syscall.SIGKILL) // the agent alone, not the program
	if code := p.code(t); code != 137 {
		t.Error(code)
	}
	if rest, err := io.ReadAll(p.out); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err) // it returns because the program has ended
	}
}

// A program outlives the thread that asked for it.
func TestProgramOutlivesThread(t *testing.T) {
	r := newRunner(t)
	started := make(chan running, 1)
	thread := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		p := start(t, r, shell(`read line; echo "got $line"; exit 6`))
		thread <- syscall.Gettid()
		started <- p
	}()
	p, tid := <-started, <-thread
	if tid != os.Getpid() { // the first thread never ends
		until(t, "the thread has ended", func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return errors.Is(err, os.ErrNotExist)
		})
	}
	fmt.Fprintln(p.in, "word")
	if got, code := p.line(t), p.code(t); got != "got word" || code != 6 {
		t.Errorf("%q, %d", got, code)
	}
}

func TestCloseKillsAndRefuses(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	r := child.New()
	p := start(t, r, shell(`trap '' TERM HUP INT; sleep 1000 & echo up; wait`))
	if p.line(t) != "up" {
		t.Fatal("it does not run")
	}
	r.Close()
	if code := p.code(t); code != 137 {
		t.Error(code)
	}
	if _, err := io.ReadAll(p.out); err != nil {
		t.Error(err)
	}
	if again, err := r.Start(shell("")); again != nil || !errors.Is(err, child.ErrClosed) {
		t.Errorf("%v, %v", again, err)
	}
	leak.None(t, ignore)
	// Not all that was killed has been reaped; nobody else in this test may
	// find it.
	newRunner(t)
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c", "a/folder"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/a/denied", "", 0o644)
	write(t, dir+"/b/denied", "", 0o755)
	write(t, dir+"/b/both", "", 0o755)
	write(t, dir+"/c/both", "", 0o755)
	write(t, dir+"/c/folder", "", 0o755)
	write(t, dir+"/a/alone", "", 0o644)
	write(t, dir+"/here", "", 0o755)
	if err := os.Symlink("gone", dir+"/a/dangling"); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	path := fmt.Sprintf("%[1]s/a:%[1]s/none:%[1]s/here:%[1]s/b:%[1]s/c", dir)
	for _, c := range []struct {
		name, path, want string
		code             int
	}{
		{"both", path, dir + "/b/both", 0},        // the first
		{"denied", path, dir + "/b/denied", 0},    // one that may not be run is passed over
		{"folder", path, dir + "/c/folder", 0},    // so is a folder
		{"alone", path, "", 126},                  // unless nothing else is there
		{"folder", dir + "/a", "", 126},           //
		{"dangling", path, "", 127},               //
		{"nothing", path, "", 127},                //
		{"here", path, "", 127},                   // not in PATH
		{"here", ":" + path + "::", "", 127},      // an empty entry is not the working directory
		{"here", "", "", 127},                     //
		{"here", ".", "./here", 0},                // one that is named is
		{"./here", "", "./here", 0},               // a path is not searched for
		{dir + "/b/both", "", dir + "/b/both", 0}, //
		{"b/both", "", "b/both", 0},               //
		{"./a", "", "", 126},                      //
		{"a/alone", "", "", 126},                  //
		{"./none", "", "", 127},                   //
		{"here/none", "", "", 127},                //
		{"", path, "", 126},                       //
	} {
		got, err := child.Find(c.name, c.path)
		var start *child.StartError
		if errors.As(err, &start) != (c.code != 0) || got != c.want || start != nil && (start.Code() != c.code || start.Name != c.name) {
			t.Errorf("Find(%q, %q) = %q, %v", c.name, c.path, got, err)
		}
	}
}
