package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// phoenix returns the command as a script runs it.
func phoenix(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Args[0] = "phoenix" // see TestMain
	return cmd
}

// printed runs a command on what comes from in, and returns what it prints and its
// exit code.
func printed(t *testing.T, cmd *exec.Cmd, in io.Reader) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Each line has its line, in their order, whatever stands in it and how many there are.
func TestGuardLines(t *testing.T) {
	for name, test := range map[string]struct {
		args     []string
		in, want string
		code     int
		stderr   string
	}{
		"no end of line":     {[]string{"redact"}, `{"text":"SSN 219-09-9999"}`, `{"text":"SSN <US_SSN>"}` + "\n", 0, ""},
		"nothing":            {[]string{"redact"}, "", "", 0, ""},
		"CRLF":               {[]string{"redact"}, "{\"text\":\"SSN 219-09-9999\"}\r\n\r\n{\"text\":\"a\"}\r\n", "{\"text\":\"SSN <US_SSN>\"}\n\n{\"text\":\"a\"}\n", 0, ""},
		"BOM":                {[]string{"redact"}, "\xEF\xBB\xBF{\"text\":\"a\"}", "{\"text\":\"a\"}\n", 0, ""},
		"BOM alone":          {[]string{"redact"}, "\xEF\xBB\xBF\n{\"text\":\"a\"}", "\n{\"text\":\"a\"}\n", 0, ""},
		"spaces":             {[]string{"redact"}, "  \t{ \"text\" : \"a\" } \n", "{\"text\":\"a\"}\n", 0, ""},
		"other members":      {[]string{"redact"}, `{"id":[{"text":1}],"text":"a","x":{}}`, "{\"text\":\"a\"}\n", 0, ""},
		"invalid UTF-8":      {[]string{"redact"}, "{\"text\":\"caf\xe9 219-09-9999\xff\"}", "{\"text\":\"caf\uFFFD <US_SSN>\uFFFD\"}\n", 0, ""},
		"its offsets":        {[]string{"scan"}, "{\"text\":\"caf\xe9 219-09-9999\"}", "[[5,16,\"US_SSN\",0.85]]\n", 0, ""},
		"escapes":            {[]string{"redact"}, `{"text":"\u0000\ud800\t\"<\\ \u2028 é"}`, "{\"text\":\"\\u0000\uFFFD\\t\\\"<\\\\ \\u2028 é\"}\n", 0, ""},
		"a quote at the end": {[]string{"redact"}, `{"text":"a\"}`, "", 2, `phoenix: line 1 is no JSON object with a text: unexpected end of JSON input`},
		"two texts":          {[]string{"redact"}, `{"text":"a","text":"b"}`, "{\"text\":\"b\"}\n", 0, ""},
		"two objects":        {[]string{"redact"}, `{"text":"a"} {"text":"b"}`, "", 2, "line 1 is no JSON object"},
		"null":               {[]string{"redact"}, `{"text":null}`, "", 2, `line 1 has no "text"`},
		"a number":           {[]string{"redact"}, `{"text":7}`, "", 2, `line 1 is no JSON object with a text: its "text" is a JSON number`},
		"a NUL":              {[]string{"redact"}, "{\"text\":\"a\"}\n\x00\n{\"text\":\"b\"}\n", "{\"text\":\"a\"}\n", 2, "line 2 is no JSON object"},
		"UTF-16":             {[]string{"redact"}, "\xFF\xFE{\x00", "", 2, "line 1 is no JSON object"},
		"a huge chunk":       {[]string{"stream", "--chunk", "9223372036854775807"}, `{"text":"SSN 219-09-9999"}`, "{\"text\":\"SSN <US_SSN>\"}\n", 0, ""},
	} {
		stdout, stderr, code := printed(t, phoenix(t, append([]string{"guard"}, test.args...)...), strings.NewReader(test.in))
		if stdout != test.want || code != test.code || !strings.Contains(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
			t.Errorf("%s: %q, %q, exit code %d; want %q, %d", name, stdout, stderr, code, test.want, test.code)
		}
	}
}

// Many lines, of all lengths, are printed in their order, up to the first that is none.
func TestGuardManyLines(t *testing.T) {
	var in, want strings.Builder
	for i := range 20_000 {
		filler := strings.Repeat("x ", i%97*i%13)
		fmt.Fprintf(&in, "{\"text\":\"%d %sSSN 219-09-9999\"}\n", i, filler)
		fmt.Fprintf(&want, "{\"text\":\"%d %sSSN <US_SSN>\"}\n", i, filler)
		if i%7 == 0 {
			in.WriteString("\n")
			want.WriteString("\n")
		}
	}
	whole := in.String()
	for _, command := range []string{"redact", "stream"} {
		stdout, stderr, code := printed(t, phoenix(t, "guard", command), strings.NewReader(whole))
		if stdout != want.String() || stderr != "" || code != 0 {
			t.Errorf("%s: %d bytes of output, want %d; %q, %d", command, len(stdout), want.Len(), stderr, code)
		}
	}
	lines := strings.Count(whole, "\n") + 1
	stdout, stderr, code := printed(t, phoenix(t, "guard", "redact"), strings.NewReader(whole+"broken\n"+whole))
	if stdout != want.String() || !strings.HasPrefix(stderr, fmt.Sprintf("phoenix: line %d is no JSON object", lines)) || strings.Count(stderr, "\n") != 1 || code != 2 {
		t.Errorf("%d bytes of output, want %d; %q, %d", len(stdout), want.Len(), stderr, code)
	}
}

// A line of 100 MB is read like any other.
func TestGuardLongLine(t *testing.T) {
	const size = 100 << 20
	in := io.MultiReader(strings.NewReader(`{"text":"`), io.LimitReader(letters{}, size), strings.NewReader("SSN 219-09-9999\"}\n{\"text\":\"b\"}\n"))
	stdout, stderr, code := printed(t, phoenix(t, "guard", "redact"), in)
	if !strings.HasSuffix(stdout, "SSN <US_SSN>\"}\n{\"text\":\"b\"}\n") || len(stdout) < size || stderr != "" || code != 0 {
		t.Errorf("%d bytes, %q, exit code %d", len(stdout), stderr, code)
	}
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "lorem ipsum "[i%12]
	}
	return len(p), nil
}

// started starts cmd, and returns what it reads and what it says.
func started(t *testing.T, cmd *exec.Cmd) (in io.WriteCloser, out io.ReadCloser) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

// Whoever writes a line at a time gets its answer before the next; an interrupt ends
// the waiting for one.
func TestGuardLineAtATime(t *testing.T) {
	for _, test := range []struct{ command, line string }{
		{"redact", `{"text":"a"}`}, {"scan", `{"text":"a"}`}, {"stream", `{"text":"a"}`},
		{"input", `{"text":"a"}`}, {"leak", `{"prompt":"You are Juniper","text":"a"}`},
	} {
		cmd := phoenix(t, "guard", test.command)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		in, out := started(t, cmd)
		answers := bufio.NewReader(out)
		for range 3 {
			fmt.Fprintln(in, test.line)
			if answer, err := answers.ReadString('\n'); err != nil || len(answer) < 3 {
				t.Fatalf("%s: %q, %v", test.command, answer, err)
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(answers)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 || errs.String() != "phoenix: interrupted; not everything was read\n" || len(rest) != 0 {
			t.Errorf("%s: interrupted with exit code %d, %q, %q", test.command, code, &errs, rest)
		}
	}
}

// A reader that goes away ends the work, and a full disk is an error.
func TestGuardNobodyReads(t *testing.T) {
	cmd := phoenix(t, "guard", "redact")
	in, out := started(t, cmd)
	out.Close()
	var err error
	for err == nil { // until it is gone
		_, err = io.WriteString(in, `{"text":"SSN 219-09-9999"}`+"\n")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	if runtime.GOOS != "linux" {
		return // where there is no disk that is always full
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd = phoenix(t, "guard", "redact")
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(`{"text":"a"}`), full, &errs
	if err := cmd.Run(); err == nil || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("%v, %q", err, &errs)
	}
}
