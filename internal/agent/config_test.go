package agent_test

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

func parse(args ...string) (agent.Config, error) {
	return agent.ParseExec(args, io.Discard, func(string) (string, bool) { return "", false })
}

func TestUsage(t *testing.T) {
	config := func(text string) string {
		file := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for want, args := range map[string][]string{
		"no command to run": {},
		"usage: there is no flag -bogus; phoenix-agent exec -help lists the flags":              {"-bogus", "--", "x"},
		`usage: invalid value "5" for flag -grace: write a number like 5, and a time like 30s;`: {"-grace", "5", "--", "x"},
		`usage: invalid value "X" for flag -stop-signal: there is no signal "X": write it like`: {"-stop-signal", "X", "--", "x"},
		"write it as NAME=REF":           {"-env", "A", "--", "x"},
		"is no name for a variable":      {"-env", "1A=m/p#f", "--", "x"},
		"never given to a child":         {"-env", "PHOENIX_X=m/p#f", "--", "x"},
		"asked for twice":                {"-env", "A=m/p#f", "-env", "A=m/p#f", "--", "x"},
		"nothing to come from":           {"-env", "A=", "--", "x"},
		"that can be passed on":          {"-pass", "VAULT_*", "--", "x"},
		"absolute, clean path":           {"-file", "rel=m/p#f", "--", "x"},
		"is no mode of a file":           {"-file", "/a=m/p#f,mode=999", "--", "x"},
		"is no owner":                    {"-file", "/a=m/p#f,owner=root", "--", "x"},
		"is no action":                   {"-file", "/a=m/p#f,on-change=explode", "--", "x"},
		"there is no signal":             {"-file", "/a=m/p#f,on-change=signal:NOPE", "--", "x"},
		"cannot be used here":            {"-stop-signal", "CHLD", "--", "x"},
		"SRC:DEST":                       {"-template", "nowhere", "--", "x"},
		"a duration is negative":         {"-grace", "-1s", "--", "x"},
		"takes no command":               {"-once", "-file", "/a=m/p#f", "--", "x"},
		"no child to give variables to":  {"-once", "-env", "A=m/p#f", "-file", "/a=m/p#f"},
		"one of http://":                 {"-health", "ping", "--", "x"},
		"127.0.0.1:9090 or unix:":        {"-listen", "9090", "--", "x"},
		"text or json":                   {"-log-format", "xml", "--", "x"},
		"debug, info, warn and error":    {"-log-level", "loud", "--", "x"},
		"there is no identity":           {"-serve", ":1=127.0.0.1:2,peer=a", "--", "x"},
		"AT=TO,peer=NAME":                {"-serve", ":1=127.0.0.1:2", "--", "x"},
		"one peer is called":             {"-call", "127.0.0.1:1=b:2,peer=a,peer=b", "--", "x"},
		"past the sidecar":               {"-identity", "pki/sign/a", "-serve", ":1=b:2,peer=a", "--", "x"},
		"in the program's name":          {"-identity", "pki/sign/a", "-call", ":1=b:2,peer=a", "--", "x"},
		"that one service alone has":     {"-identity", "pki/sign/a", "-serve", ":1=127.0.0.1:2,peer=localhost", "--", "x"},
		"plain requests could be of":     {"-identity", "pki/sign/a", "-serve", ":1=127.0.0.1:2,peer=a:report,peer=b:report", "--", "x"},
		"listens at 127.0.0.1:1 already": {"-identity", "pki/sign/a", "-proxy", "127.0.0.1:1", "-call", "127.0.0.1:1=b:2,peer=a", "--", "x"},
		"-listen: something else":        {"-identity", "pki/sign/a", "-listen", ":1", "-call", "127.0.0.1:1=b:2,peer=a", "--", "x"},
		"audit: something else":          {"-listen", "127.0.0.1:1", "-config", config("audit: {dir: /a, listen: 'localhost:1', token: m/p#t}"), "--", "x"},
		"postgres: something else":       {"-identity", "pki/sign/a", "-tunnel", "127.0.0.1:1=b:2,peer=b", "-postgres", "127.0.0.1:1=db:5432/a,lease=d/creds/a,ca=/c,env=P:url", "--", "x"},
		"listens at unix:/run/pg/.s":     {"-postgres", "unix:/run/pg=db:5432/a,lease=d/creds/a,ca=/c", "-postgres", "unix:/run/pg/.s.PGSQL.5432=db:5432/b,lease=d/creds/a,ca=/c", "--", "x"},
		"lead to the agent itself":       {"-identity", "pki/sign/a", "-listen", "127.0.0.1:9090", "-serve", ":1=127.0.0.1:9090,peer=a", "--", "x"},
		`at "4101" is no place; write it like 127.0.0.1:3101` + "$": {"-identity", "pki/sign/a", "-call", "4101=b:2,peer=b", "--", "x"},
		`there is no port "99999"`:                                  {"-identity", "pki/sign/a", "-serve", ":99999=127.0.0.1:1,peer=b", "--", "x"},
		`there is no port "0"`:                                      {"-identity", "pki/sign/a", "-call", "127.0.0.1:1=b:0,peer=b", "--", "x"},
		"at most 107 bytes":                                         {"-identity", "pki/sign/a", "-tunnel", "unix:/" + strings.Repeat("x", 107) + "=b:2,peer=b", "--", "x"},
		`has the mode "lax"`:                                        {"-identity", "pki/sign/a", "-serve", ":1=127.0.0.1:2,peer=b:lax", "--", "x"},
		"move takes no value":                                       {"-postgres", "unix:/run/pg=db:5432/a,lease=d/creds/a,ca=/c,move=no", "--", "x"},
		"a time like 30s is wanted":                                 {"-config", config("serve: [{at: ':1', stall: 30}]"), "--", "x"},
		"it listens for nothing":                                    {"-once", "-file", "/a=m/p#f", "-identity", "pki/sign/a", "-call", "127.0.0.1:1=b:2,peer=a"},
		"no folder":                                                 {"-config", config("audit: {signer: transit/sign/a}"), "--", "x"},
		"record in the program's name":                              {"-config", config("audit: {dir: /a, listen: ':1', token: m/p#f}"), "--", "x"},
		"whoever is on this host":                                   {"-config", config("audit: {dir: /a, listen: '127.0.0.1:1'}"), "--", "x"},
		"names no field":                                            {"-config", config("audit: {dir: /a, listen: '127.0.0.1:1', token: m/p}"), "--", "x"},
		"-config /no/such/file: open ":                              {"-config", "/no/such/file", "--", "x"},
	} {
		_, err := parse(args...)
		if !errors.Is(err, agent.ErrUsage) || !strings.Contains(err.Error()+"$", want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	if _, err := parse("-help"); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte(`
service: from-file
secret_id: {file: /run/x, no_wait: true}
ticket: /run/ticket
env: {B: m/p#b, A: 'x{{secret "m/p#a"}}'}
files:
  - {path: /run/f, from: m/p#f, mode: "0640", owner: "999:", on_change: {run: [reload, two words]}}
  - {path: /run/g, template: t.tmpl, on_change: signal:HUP}
on_change: {m/p#a: none}
grace: 3s
restarts: 7
stop_signal: QUIT
command: [from, file]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parse("-config", file, "-service", "from-flag", "-grace", "4s", "-env", "C=m/p#c", "--", "from", "flag")
	if err != nil {
		t.Fatal(err)
	}
	if c.Boot.Service != "from-flag" || c.Grace != 4*time.Second || c.Command[1] != "flag" || c.Restarts != 7 || c.StopSignal != syscall.SIGQUIT ||
		c.Boot.Spent != bootstrap.FailWhenSpent || c.Boot.TicketFile != "/run/ticket" || c.Boot.SecretIDFile != "/run/x" {
		t.Errorf("%+v", c)
	}
	if len(c.Env) != 3 || c.Env[0].Name != "A" || c.Env[2].Name != "C" {
		t.Errorf("%+v", c.Env)
	}
	f := c.Files[0]
	if f.Mode != 0o640 || f.UID != 999 || f.GID != -1 || f.OnChange.Run[1] != "two words" {
		t.Errorf("%+v", f)
	}
	if g := c.Files[1]; g.Template != filepath.Join(filepath.Dir(file), "t.tmpl") || g.OnChange.Signal != syscall.SIGHUP {
		t.Errorf("%+v", g)
	}
}

func TestTrafficInTheFile(t *testing.T) {
	c, err := agent.Load("agent.yaml", []byte(`
command: [x]
identity: {role: pki/sign/mcp-hr, names: [mcp-hr, "spiffe://tamshai.example/mcp-hr"], roots: pki-root, crl: require}
serve:
  - at: :3101
    to: 127.0.0.1:13101
    max_body: 1048576
    peers:
      mcp-gateway:
      kong: {mode: report, from: [10.0.3.0/24]}
call:
  - {peer: mcp-finance, to: "mcp-finance:3102", at: 127.0.0.1:4102, answer: 10m}
proxy: 127.0.0.1:3128
`))
	if err != nil {
		t.Fatal(err)
	}
	in := c.Sidecar.Serve[0]
	if len(c.Identity.Names) != 2 || c.Identity.CRL != "require" || in.MaxBody != 1<<20 || len(in.Peers) != 2 || in.Peers["kong"].From[0] != "10.0.3.0/24" ||
		c.Sidecar.Call[0].Answer != 10*time.Minute || c.Sidecar.Proxy == "" {
		t.Errorf("%+v %+v", c.Identity, c.Sidecar)
	}
}

// The example shows every key of the traffic, and is understood.
func TestExampleHasEveryKey(t *testing.T) {
	const file = "../../examples/agent/sidecar.yaml"
	if _, err := parse("-config", file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var look func(t reflect.Type)
	var missing []string
	look = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Slice, reflect.Map, reflect.Pointer:
			look(of.Elem())
		case reflect.Struct:
			for i := range of.NumField() {
				key := of.Field(i).Tag.Get("yaml")
				if !regexp.MustCompile(`(?m)^[ -]*` + key + `:`).Match(text) {
					missing = append(missing, of.Name()+"."+key)
				}
				look(of.Field(i).Type)
			}
		}
	}
	look(reflect.TypeFor[sidecar.Config]())
	if missing != nil {
		t.Errorf("it has no %v", missing)
	}
}

func TestFileIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"comand: [x]":                     "comand",
		"grace: 1s\ngrace: 2s":            "grace",
		"grace: soon":                     "line 1: a time like 30s",
		"---\ngrace: 1s\n---\ngrace: 2s":  "a second document begins",
		"on_change: {m/p#f: {walk: [x]}}": "run: [CMD",
		"on_change: {m/p#f: {run: []}}":   "names no command",
		"files: [{path: /a, mode: 7777}]": "no mode",
		"serve: [{peer: a}]":              "peer",
		"call: [{to: a, peers: {a: {}}}]": "peers",
	} {
		if _, err := agent.Load("agent.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// Options stand at the end; what else has commas is the template's own.
func TestFileOptions(t *testing.T) {
	c, err := parse("-file", `/a=a,b,{{secret "m/p#f"}},mode=0600,disk,on-change=run:reload now`, "-on-change", "m/p#f=x=restart", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	f := c.Files[0]
	if f.From != `a,b,{{secret "m/p#f"}}` || !f.Disk || f.Mode != 0o600 || f.OnChange.String() != "run:reload now" {
		t.Errorf("%+v", f)
	}
	if c.OnChange["m/p#f=x"].Kind != agent.Restart {
		t.Errorf("%+v", c.OnChange)
	}
}

func TestActionsComeBack(t *testing.T) {
	word := rapid.StringMatching(`[a-z./-]{1,8}`)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.SampledFrom([]string{"none", "restart", "signal:HUP", "signal:USR1", "signal:TERM"}),
			rapid.Map(rapid.SliceOfN(word, 1, 4), func(words []string) string { return "run:" + strings.Join(words, " ") }),
		).Draw(t, "action")
		a, err := agent.ParseAction(text)
		if err != nil || a.String() != text {
			t.Fatalf("%q comes back as %q: %v", text, a, err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("env: {A: m/p#f}\ncommand: [x]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = agent.Load("agent.yaml", data) // it must not panic
	})
}

func FuzzParseExec(f *testing.F) {
	f.Add("-env", "A=m/p#f", "-file", "/a=b,mode=1")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		if strings.Contains(a+b+c+d, "config") {
			return // it would read files
		}
		if _, err := parse(a, b, c, d, "--", "x"); err != nil && !errors.Is(err, agent.ErrUsage) && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%v is not one of usage", err)
		}
	})
}
