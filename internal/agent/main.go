package agent

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tamshai/phoenix/internal/buildinfo"
	"github.com/tamshai/phoenix/internal/secmem"
)

const mainUsage = `Usage: phoenix-agent exec [flags] -- CMD [ARG…]
       phoenix-agent exec -once [flags]
       phoenix-agent check [flags]

exec   boots from a one-use SecretID, gives CMD its secrets and supervises it
check  asks a running agent whether it is ready: a container's health check

Exit codes of exec: CMD's own; 2 wrong usage; 120 the SecretID is spent or
missing and -no-wait was given; 125 the agent failed before CMD; 126 CMD cannot
be executed; 127 there is no CMD. Of check: 0 ready; 1 not ready; 2 wrong usage;
3 no agent answers.

phoenix-agent exec -help and phoenix-agent check -help list the flags.
`

// Main is the command: it returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 1 {
		command = args[1]
	}
	var code int
	var err error
	switch command {
	case "exec":
		code, err = mainExec(args, stdout)
	case "check":
		code, err = mainCheck(args[2:], stdout)
	case "version", "-version", "--version":
		fmt.Fprintln(stdout, "phoenix-agent", version())
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, mainUsage)
	case "":
		code, err = codeUsage, usage("a command is missing: exec or check; phoenix-agent help says more")
	default:
		code, err = codeUsage, usage("unknown command %q; there are exec and check", command)
	}
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "phoenix-agent: "+oneLine(err))
	}
	return code
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
}

func mainExec(args []string, stdout io.Writer) (int, error) {
	cfg, err := ParseExec(args[2:], stdout, os.LookupEnv)
	if err != nil {
		return exitCode(err), err
	}
	// Before anything else, and before the process can no longer look at
	// itself.
	if cfg.inherited, err = takeSecretID(args, cfg.Boot.Service); err != nil {
		return exitCode(err), err
	}
	if err := secmem.Harden(); err != nil {
		cfg.Logger.Warn("the agent's memory cannot be closed to other processes", "error", err)
	}
	return Run(cfg)
}

const checkUsage = `Usage: phoenix-agent check [flags]

Asks a running agent whether it is ready. It needs no shell and no curl:

  HEALTHCHECK CMD ["phoenix-agent", "check", "-listen", "unix:/run/phoenix/agent.sock"]

Flags:
`

func mainCheck(args []string, stdout io.Writer) (int, error) {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	listen := fs.String("listen", os.Getenv("PHOENIX_LISTEN"), "where the agent listens: its own `ADDR`; PHOENIX_LISTEN")
	live := fs.Bool("live", false, "ask only whether it is alive")
	asJSON := fs.Bool("json", false, "print {ready, session, child, reason, stale, secrets_age_seconds}")
	timeout := fs.Duration("timeout", 5*time.Second, "the longest `time` to wait for the answer")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, checkUsage)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return 0, err
	} else if err != nil {
		return codeUsage, flagFault("check", err)
	}
	if fs.NArg() > 0 {
		return codeUsage, usage("check takes no argument, and got %q", fs.Arg(0))
	}
	if *listen == "" {
		return codeUsage, usage("-listen is missing: name where the agent listens, or set PHOENIX_LISTEN")
	}
	if err := checkListen(*listen); err != nil {
		return codeUsage, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	path := "/readyz"
	if *live {
		path = "/livez"
	}
	resp, err := ask(ctx, *listen, path)
	if err != nil {
		var request *url.Error // which nobody has made by its name
		if errors.As(err, &request) {
			err = request.Err
		}
		return 3, fmt.Errorf("no agent answers at %s: %w; see whether it runs, and what its own -listen says", *listen, err)
	}
	defer resp.Body.Close()
	if *live {
		fmt.Fprintln(stdout, "alive")
		return 0, nil
	}
	var r Report
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r); err != nil {
		return 3, fmt.Errorf("what answers at %s is no agent", *listen)
	}
	if *asJSON {
		line, _ := json.Marshal(r)
		fmt.Fprintln(stdout, string(line))
	} else {
		fmt.Fprintln(stdout, r)
	}
	if !r.Ready {
		return 1, nil
	}
	return 0, nil
}

// String is the report in a line.
func (r Report) String() string {
	what := "not ready"
	if r.Ready {
		what = "ready"
	}
	if r.Reason != "" {
		what += ": " + r.Reason
	}
	if r.SecretsAge >= 0 {
		age := time.Duration(r.SecretsAge * float64(time.Second)).Round(time.Second)
		what += fmt.Sprintf(" (secrets seen to be the newest %v ago)", age)
	}
	return what
}

func ask(ctx context.Context, listen, path string) (*http.Response, error) {
	network, address := split(listen)
	if host, port, err := net.SplitHostPort(address); network == "tcp" && err == nil && host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

// version is what was built, and whether it erases what handled a secret.
func version() string {
	if secmem.Erases {
		return buildinfo.Version() + " (erases secrets)"
	}
	return buildinfo.Version()
}
