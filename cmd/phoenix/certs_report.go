package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tamshai/phoenix/tlsconfig"
)

// count returns how many findings have the severity.
func (c *check) count(s tlsconfig.Severity) int {
	n := 0
	if c.report != nil {
		for _, f := range c.report.Findings {
			if f.Severity == s {
				n++
			}
		}
	}
	return n
}

// printChecks prints a table of the endpoints, and below it what is wrong.
func printChecks(out io.Writer, checks []*check, about string) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ENDPOINT\tPROTOCOL\tIDENTITY\tEXPIRES\tTLS\tKEY EXCHANGE\tVERDICT")
	for _, c := range checks {
		row := []string{c.name, string(c.who.Protocol), "-", "-", "-", "-", c.verdict()}
		if r := c.report; r != nil && r.Version != 0 {
			row[2], row[3] = strings.Join(shortened(r.Names), ","), r.Expires.UTC().Format(time.RFC3339)
			row[4], row[5] = tlsVersion(r.Version), keyExchange(r)
			if r.PostQuantum() {
				row[5] += " (pq)"
			}
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	_ = table.Flush() // stdout remembers
	counts := map[string]int{}
	colours := hasColours(out)
	for _, c := range checks {
		counts[c.verdict()]++
		switch {
		case c.skip != "":
			printCheck(out, colours, "skipped", c.name, "", c.skip, "")
		case c.err != nil:
			printCheck(out, colours, "unreachable", c.name, "", strings.TrimPrefix(c.err.Error(), "tlsconfig: "), "")
		default:
			for _, f := range c.report.Findings {
				printCheck(out, colours, string(f.Severity), c.name, string(f.Code), f.Message, f.Remedy)
			}
		}
	}
	fmt.Fprintf(out, "%s: %s, %d ok, %d with findings, %d unreachable, %d skipped\n", about, plural(len(checks), "endpoint"),
		counts["ok"], counts["finding"], counts["unreachable"], counts["skipped"])
}

func printCheck(out io.Writer, colours bool, kind, name, code, message, remedy string) {
	head := fmt.Sprintf("%-11s", kind)
	if colour := map[string]int{"problem": 31, "unreachable": 31, "warning": 33, "note": 36, "skipped": 2}[kind]; colours {
		head = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, head)
	}
	if code != "" {
		code += ": "
	}
	fmt.Fprintf(out, "%s  %s: %s%s\n", head, name, code, message)
	if remedy != "" {
		fmt.Fprintf(out, "%-11s  -> %s\n", "", remedy)
	}
}

// shortened leaves a table readable.
func shortened(names []string) []string {
	if len(names) == 0 {
		return []string{"-"}
	}
	if len(names) > 3 {
		return append(slices.Clone(names[:3]), "…")
	}
	return names
}

func tlsVersion(v uint16) string { return strings.TrimPrefix(tls.VersionName(v), "TLS ") }

func keyExchange(r *tlsconfig.Report) string {
	if r.KeyExchange == 0 {
		return "RSA" // of TLS 1.2 and older: without forward secrecy
	}
	return r.KeyExchange.String()
}

type checkJSON struct {
	Name        string        `json:"name"`
	Addr        string        `json:"addr"`
	Protocol    string        `json:"protocol"`
	Verdict     string        `json:"verdict"`
	Error       string        `json:"error"`
	Identity    []string      `json:"identity"`
	Issuer      string        `json:"issuer"`
	Expires     string        `json:"expires"`
	TLS         string        `json:"tls"`
	KeyExchange string        `json:"key_exchange"`
	ALPN        string        `json:"alpn"`
	PostQuantum bool          `json:"post_quantum"`
	Accepted    bool          `json:"accepted"`
	Findings    []findingJSON `json:"findings"`
}

type findingJSON struct {
	Code     tlsconfig.Code     `json:"code"`
	Severity tlsconfig.Severity `json:"severity"`
	Message  string             `json:"message"`
	Remedy   string             `json:"remedy"`
}

func checksJSON(checks []*check) map[string]any {
	list := []checkJSON{}
	problems, warnings, unreachable := 0, 0, 0
	for _, c := range checks {
		j := checkJSON{Name: c.name, Addr: c.who.Addr, Protocol: string(c.who.Protocol), Verdict: c.verdict(), Error: c.skip, Identity: []string{}, Findings: []findingJSON{}}
		problems += c.count(tlsconfig.SeverityProblem)
		warnings += c.count(tlsconfig.SeverityWarning)
		if c.err != nil {
			unreachable++
			j.Error = strings.TrimPrefix(c.err.Error(), "tlsconfig: ")
		}
		if r := c.report; r != nil {
			for _, f := range r.Findings {
				j.Findings = append(j.Findings, findingJSON(f))
			}
			if r.Version != 0 {
				j.Identity, j.Issuer, j.Expires = append(j.Identity, r.Names...), r.Issuer, r.Expires.UTC().Format(time.RFC3339)
				j.TLS, j.KeyExchange, j.ALPN = tlsVersion(r.Version), keyExchange(r), r.ALPN
				j.PostQuantum, j.Accepted = r.PostQuantum(), r.Accepted
			}
		}
		list = append(list, j)
	}
	return map[string]any{"problems": problems, "warnings": warnings, "unreachable": unreachable, "endpoints": list}
}
