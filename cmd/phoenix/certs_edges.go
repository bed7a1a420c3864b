package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// agentEdges are the edges of one agent, or why it does not say.
type agentEdges struct {
	agent string
	edges []sidecar.Edge
	err   error
}

// errNoAgent is an agent that does not answer.
var errNoAgent = errors.New("no agent answers")

// askAgents asks each agent that --agent names for its edges.
func askAgents(ctx context.Context, cmd *cli.Command) []agentEdges {
	var all []agentEdges
	for _, at := range cmd.StringSlice("agent") {
		ctx, cancel := context.WithTimeout(ctx, cmd.Duration("timeout"))
		edges, err := askEdges(ctx, at)
		cancel()
		all = append(all, agentEdges{at, edges, err})
	}
	return all
}

func askEdges(ctx context.Context, at string) (edges []sidecar.Edge, err error) {
	err = askAgent(ctx, at, "/edges", &edges)
	return edges, err
}

// askAgent reads what the agent at that address answers to the path.
func askAgent(ctx context.Context, at, path string, into any) error {
	network, address := "tcp", at
	if path, ok := strings.CutPrefix(at, "unix:"); ok {
		network, address = "unix", path
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w at %s: %w; give what its -listen says", errNoAgent, at, cause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w at %s: what is there answers %s", errNoAgent, at, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into); err != nil {
		return fmt.Errorf("%w at %s: what is there answers with something else", errNoAgent, at)
	}
	return nil
}

// cause is err without the request, which nobody has made by that name.
func cause(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// edgesResult is what the command ends with: a finding if an edge can be made
// strict.
func edgesResult(all []agentEdges, quiet time.Duration, now time.Time) error {
	var away error
	for _, a := range all {
		if a.err != nil {
			away = errors.Join(away, a.err)
		}
		for _, e := range a.edges {
			if ready, _ := e.Ready(quiet, now); ready {
				return errFinding
			}
		}
	}
	return away
}

func printEdges(out io.Writer, all []agentEdges, quiet time.Duration, now time.Time) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AGENT\tSIDE\tAT\tPEER\tMODE\tTLS\tPLAIN\tLAST PLAIN")
	for _, a := range all {
		for _, e := range a.edges {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", a.agent, e.Side, orElse(e.At, "-"), e.Peer, e.Mode, e.TLS, e.Plain, orElse(rfc3339(e.LastPlain), "-"))
		}
	}
	_ = table.Flush() // stdout remembers
	colours := hasColours(out)
	for _, a := range all {
		if a.err != nil {
			printCheck(out, colours, "unreachable", a.agent, "", a.err.Error(), "")
		}
		for _, e := range a.edges {
			name := e.Peer + " at " + e.At
			ready, why := e.Ready(quiet, now)
			switch {
			case ready:
				printCheck(out, colours, "warning", name, "edge-ready", why, "set its mode to strict")
			case e.Mode != sidecar.Strict:
				printCheck(out, colours, "note", name, "edge-open", why, "")
			}
		}
	}
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

type edgeJSON struct {
	Agent     string `json:"agent"`
	Error     string `json:"error"`
	Side      string `json:"side"`
	At        string `json:"at"`
	Peer      string `json:"peer"`
	Mode      string `json:"mode"`
	TLS       uint64 `json:"tls"`
	Plain     uint64 `json:"plain"`
	LastTLS   string `json:"last_tls"`
	LastPlain string `json:"last_plain"`
	Since     string `json:"since"`
	Ready     bool   `json:"ready"`
	Why       string `json:"why"`
}

func edgesJSON(all []agentEdges, quiet time.Duration, now time.Time) []edgeJSON {
	list := []edgeJSON{}
	for _, a := range all {
		if a.err != nil {
			list = append(list, edgeJSON{Agent: a.agent, Error: a.err.Error()})
		}
		for _, e := range a.edges {
			ready, why := e.Ready(quiet, now)
			list = append(list, edgeJSON{
				Agent: a.agent, Side: e.Side, At: e.At, Peer: e.Peer, Mode: string(e.Mode), TLS: e.TLS, Plain: e.Plain,
				LastTLS: rfc3339(e.LastTLS), LastPlain: rfc3339(e.LastPlain), Since: rfc3339(e.Since), Ready: ready, Why: why,
			})
		}
	}
	return list
}
