package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/tamshai/phoenix/bootstrap"
)

const execUsage = `Usage: phoenix-agent exec [flags] -- CMD [ARG…]

Boots a session with the service's one-use SecretID, gives CMD its secrets in
variables and files, and supervises it. Vault's address, the RoleID and the
SecretID's file come from the environment, as for every Phoenix service.

  phoenix-agent exec -service mcp-hr \
    -env CLAUDE_API_KEY=tamshai/mcp-gateway#claude_api_key \
    -env 'MONGODB_URI=mongodb://tamshai:{{secret "tamshai/databases#mongodb_password"}}@mongodb/' \
    -- node server.js

Flags:
`

// flagFault is what package flag found wrong, with what it does not say.
func flagFault(command string, err error) error {
	text := strings.NewReplacer(
		"flag provided but not defined: ", "there is no flag ",
		": parse error", ": write a number like 5, and a time like 30s",
		": "+ErrUsage.Error()+": ", ": ", // of a flag with a reader of its own
	).Replace(err.Error())
	return usage("%s; phoenix-agent %s -help lists the flags", text, command)
}

// ParseExec reads the flags and the command of "phoenix-agent exec", and the
// file that -config names, which the flags add to and override. It writes help
// and nothing else to out, and then returns flag.ErrHelp.
func ParseExec(args []string, out io.Writer, lookup func(string) (string, bool)) (Config, error) {
	c := Config{Restarts: DefaultRestarts}
	if path := configArg(args); path != "" {
		var err error
		if c, err = LoadFile(path); err != nil {
			return Config{}, err
		}
	}
	env := func(field *string, name string) {
		if value, _ := lookup(name); *field == "" {
			*field = value
		}
	}
	env(&c.Boot.Service, "PHOENIX_SERVICE")
	env(&c.Listen, "PHOENIX_LISTEN")

	fs := flag.NewFlagSet("exec", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var logFormat, logLevel string
	var noWait bool
	fs.String("config", "", "read this `file` first; the flags add to it and override it")
	fs.StringVar(&c.Boot.Service, "service", c.Boot.Service, "the service's `name`; PHOENIX_SERVICE")
	fs.StringVar(&c.Boot.Environment, "environment", c.Boot.Environment, "the environment's `name` in audit events")
	fs.StringVar(&c.Boot.SecretIDFile, "secret-id-file", c.Boot.SecretIDFile, "the `file` with the SecretID, followed for hand-overs; VAULT_SECRET_ID_FILE")
	fs.BoolVar(&c.Boot.RequireWrapped, "require-wrapped", c.Boot.RequireWrapped, "refuse a SecretID that is not response-wrapped")
	fs.BoolVar(&c.Boot.RequireProof, "require-proof", c.Boot.RequireProof, "refuse to start unless the SecretID is proven gone")
	fs.BoolVar(&noWait, "no-wait", false, "exit with 120 when the SecretID is spent, instead of waiting for a new one")
	fs.StringVar(&c.Boot.TicketFile, "ticket", c.Boot.TicketFile, "at the end leave a restart ticket in this `file` on tmpfs, and start from it")
	fs.DurationVar(&c.Boot.Poll, "poll", c.Boot.Poll, "mean `time` between looks for new versions; 0 means 30s")
	fs.Func("env", "give CMD the variable `NAME=REF`, or NAME=TEMPLATE; repeatable", c.addEnv)
	fs.Func("pass", "pass on the agent's own variable `NAME`, NAME* or *; repeatable", func(s string) error {
		c.Pass = append(c.Pass, s)
		return nil
	})
	fs.Func("file", "write the file `PATH=REF`, or PATH=TEMPLATE; repeatable\n(,mode=0640 ,owner=UID:GID ,on-change=ACTION ,disk may follow)", c.addFile)
	fs.Func("template", "write the template file `SRC:DEST`; repeatable, options as for -file", c.addTemplate)
	fs.Func("on-change", "when `REF=ACTION` changes: none, restart, signal:HUP, run:CMD; repeatable\n(without it: restart if CMD has it in a variable, else what its file says)", c.addOnChange)
	fs.DurationVar(&c.Window, "window", c.Window, "changes within this `time` act once; 0 means 1s")
	fs.BoolVar(&c.Once, "once", c.Once, "write the files and exit, for init containers; no CMD")
	fs.IntVar(&c.Restarts, "restarts", c.Restarts, "start a crashed CMD again this `often` in a row, -1 for ever; then exit with its code")
	fs.Func("stop-signal", "the `signal` that asks CMD to end; TERM without it", func(s string) (err error) {
		c.StopSignal, err = parseSignal(s)
		return err
	})
	fs.DurationVar(&c.Grace, "grace", c.Grace, "the `time` from the stop signal to SIGKILL; 0 means 10s")
	fs.DurationVar(&c.Jitter, "jitter", c.Jitter, "put off a restart after a change by up to this `time`")
	fs.StringVar(&c.Health.Check, "health", c.Health.Check, "CMD is healthy when this `check` succeeds: http://…, tcp:HOST:PORT, run:CMD")
	fs.DurationVar(&c.Health.Timeout, "health-timeout", c.Health.Timeout, "the `time` CMD has to become healthy; 0 means 1m")
	fs.DurationVar(&c.Health.Interval, "health-interval", c.Health.Interval, "the `time` between checks; 0 means 10s")
	fs.DurationVar(&c.MaxStale, "max-stale", c.MaxStale, "stay ready with secrets of up to this `age` when the token is lost and Vault away")
	fs.StringVar(&c.Listen, "listen", c.Listen, "serve /livez, /readyz and /metrics at `ADDR` (127.0.0.1:9090, unix:/PATH); PHOENIX_LISTEN")
	fs.StringVar(&c.Audit.Dir, "audit", c.Audit.Dir, "keep an audit log in this `folder`, for phoenix audit")
	fs.Func("identity", "speak mutual TLS with a certificate of this `ROLE[,NAME…]` of Vault's PKI, like pki/sign/mcp-hr", c.addIdentity)
	fs.Func("serve", "take mutual TLS at AT for CMD's port TO: `AT=TO,peer=NAME[:MODE]…`; repeatable\n(MODE: strict, or permissive or report while callers move)", c.addServe)
	fs.Func("call", "take CMD's plain requests at AT, to the peer at TO: `AT=TO,peer=NAME`; repeatable", c.addCall)
	fs.Func("tunnel", "take CMD's connections at AT to the server at TO, and add the TLS: `AT=TO,peer=NAME`; repeatable", c.addTunnel)
	fs.StringVar(&c.Sidecar.Proxy, "proxy", c.Sidecar.Proxy, "take CMD's requests for any -call by its host, at `ADDR`, as HTTP_PROXY")
	fs.Func("postgres", "log CMD in without a password at LISTEN: `LISTEN=SERVER/DATABASE,lease=REF,…`; repeatable\n(LISTEN: unix:/run/phoenix/pg or 127.0.0.1:PORT; certificate=ROLE of Vault's PKI or ca=FILE,\nuser=NAME; move: sessions outlive a lease; env=NAME:WHAT gives CMD the url, host, port, database, user or password)", c.addPostgres)
	fs.StringVar(&logFormat, "log-format", "text", "`text` or json, on standard error")
	fs.StringVar(&logLevel, "log-level", "info", "debug, `info`, warn or error")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(out, execUsage)
		fs.SetOutput(out)
		fs.PrintDefaults()
		return Config{}, err
	} else if err != nil {
		return Config{}, flagFault("exec", err)
	}
	if fs.NArg() > 0 {
		c.Command = fs.Args()
	}
	if noWait {
		c.Boot.Spent = bootstrap.FailWhenSpent
	}
	logger, err := newLogger(os.Stderr, logFormat, logLevel)
	if err != nil {
		return Config{}, err
	}
	c.Logger = logger
	return c, c.check()
}

// configArg finds -config before the flags are parsed, because they override
// what is in the file.
func configArg(args []string) string {
	for i, arg := range args {
		if arg == "--" || !strings.HasPrefix(arg, "-") && (i == 0 || !strings.HasPrefix(args[i-1], "-")) {
			return ""
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case name != "config":
		case given:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("-log-level %s: it is one of debug, info, warn and error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usage("-log-format %s: it is text or json", format)
}

func (c *Config) addEnv(s string) error {
	name, from, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("write it as NAME=REF or NAME=TEMPLATE")
	}
	c.Env = append(c.Env, Variable{name, from})
	return nil
}

func (c *Config) addFile(s string) error {
	path, from, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("write it as PATH=REF or PATH=TEMPLATE")
	}
	f, from, err := fileOptions(from)
	f.Path, f.From = path, from
	c.Files = append(c.Files, f)
	return err
}

func (c *Config) addTemplate(s string) error {
	f, s, err := fileOptions(s)
	if err != nil {
		return err
	}
	src, dest, ok := strings.Cut(s, ":")
	if !ok || src == "" {
		return fmt.Errorf("write it as SRC:DEST")
	}
	if f.Template, err = filepath.Abs(src); err != nil {
		return err
	}
	f.Path = dest
	c.Files = append(c.Files, f)
	return nil
}

// fileOptions cuts options like ",mode=0640" off the end of s.
func fileOptions(s string) (File, string, error) {
	f := File{UID: -1, GID: -1}
	for {
		i := strings.LastIndexByte(s, ',')
		if i < 0 {
			return f, s, nil
		}
		key, value, _ := strings.Cut(s[i+1:], "=")
		var err error
		switch key {
		case "mode":
			f.Mode, err = parseMode(value)
		case "owner":
			f.UID, f.GID, err = parseOwner(value)
		case "on-change":
			f.OnChange, err = ParseAction(value)
		case "disk":
			f.Disk = true
		default:
			return f, s, nil // it belongs to the reference or template
		}
		if err != nil {
			return f, s, err
		}
		s = s[:i]
	}
}

func (c *Config) addOnChange(s string) error {
	i := onChangeCut(s)
	if i < 0 {
		return fmt.Errorf("write it as REF=ACTION")
	}
	action, err := ParseAction(s[i+1:])
	if err != nil {
		return err
	}
	if c.OnChange == nil {
		c.OnChange = map[string]Action{}
	}
	c.OnChange[s[:i]] = action
	return nil
}

// onChangeCut finds the first "=" that an action follows: a reference may hold
// one itself.
func onChangeCut(s string) int {
	for i := range len(s) {
		if s[i] != '=' {
			continue
		}
		if _, err := ParseAction(s[i+1:]); err == nil {
			return i
		}
	}
	return strings.IndexByte(s, '=')
}
