package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/internal/yamlfile"
)

func guardCommand() *cli.Command {
	return &cli.Command{
		Name:   "guard",
		Usage:  "find and remove personal data and secrets in text",
		Action: needsCommand,
		Commands: []*cli.Command{
			guardScanCommand(),
			guardRedactCommand(),
			guardStreamCommand(),
			guardLeakCommand(),
			guardInputCommand(),
			guardServeCommand(),
			guardEntitiesCommand(),
		},
	}
}

func entitiesFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "entities", Usage: "look for these `LABELS` alone, with commas between; see phoenix guard entities"}
}

func guardScanCommand() *cli.Command {
	return &cli.Command{
		Name:      "scan",
		Usage:     "list the findings in each line of JSONL, or show them in a file",
		ArgsUsage: "[FILE]",
		Description: `Reads a JSON object with a "text" on each line of standard input, and writes
for each a line [[start,end,label,score],…]; offsets are code points. Findings
do not overlap and reach the threshold of 0.5. With --min-score, all candidates
of that score or more are listed, those for the same characters too.

With a FILE, or on a terminal, the text is shown with its findings marked.

An empty line has an empty line. The exit code is 0 if every line was read, whatever
was found; 2 if one is not as above, and then nothing is printed for it or after it.

   echo '{"text":"SSN 219-09-9999"}' | phoenix guard scan
   phoenix guard scan notes.txt`,
		Flags: []cli.Flag{
			&cli.FloatFlag{Name: "min-score", Usage: "list candidates with a score of `X` or more, from 0 to 1", HideDefault: true},
			entitiesFlag(), policyFlag(),
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			g, err := newGuard(cmd)
			if err != nil {
				return err
			}
			find := g.Scan
			if cmd.IsSet("min-score") {
				least := cmd.Float("min-score")
				if !(least >= 0 && least <= 1) {
					return usagef("--min-score %g: want 0 to 1", least)
				}
				find = func(text []byte) []guard.Finding { return g.Candidates(text, least) }
			}
			if cmd.Args().Len() > 0 || isTerminal(os.Stdin) {
				return showFindings(ctx, cmd, find)
			}
			return eachLine(ctx, func() lineWorker {
				return onTexts(func(out []byte, text string) ([]byte, error) {
					return appendFindings(out, text, find([]byte(text))), nil
				})
			})
		},
	}
}

func guardRedactCommand() *cli.Command {
	return &cli.Command{
		Name:  "redact",
		Usage: "replace the findings in each line of JSONL",
		Description: `Reads a JSON object with a "text" on each line of standard input, and writes
for each a line {"text":…} in which a label such as <US_SSN> stands for each
finding.

An empty line has an empty line. The exit code is 2 if one is not as above, and 1
if --policy blocks what is in one; then nothing is printed for it or after it.

   echo '{"text":"SSN 219-09-9999"}' | phoenix guard redact`,
		Flags: []cli.Flag{entitiesFlag(), policyFlag()},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			g, err := newGuard(cmd)
			if err != nil {
				return err
			}
			return eachLine(ctx, func() lineWorker {
				return onTexts(func(out []byte, text string) ([]byte, error) {
					clean, _, err := g.Redact([]byte(text))
					if err != nil {
						return out, err
					}
					return appendText(out, clean)
				})
			})
		},
	}
}

func guardStreamCommand() *cli.Command {
	return &cli.Command{
		Name:  "stream",
		Usage: "do as redact does, on text that comes in chunks",
		Description: `Reads and writes what phoenix guard redact does, and gives each text to a
stream in chunks of --chunk bytes. What comes out is the same.

   echo '{"text":"SSN 219-09-9999"}' | phoenix guard stream --chunk 3`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "chunk", Usage: "cut texts every `N` bytes", Value: 16},
			entitiesFlag(), policyFlag(),
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			size := cmd.Int("chunk")
			if size < 1 {
				return usagef("--chunk %d: want 1 or more", size)
			}
			g, err := newGuard(cmd)
			if err != nil {
				return err
			}
			return eachLine(ctx, func() lineWorker {
				return onTexts(func(out []byte, text string) ([]byte, error) {
					var clean bytes.Buffer
					w := g.NewWriter(&clean)
					for piece := range slices.Chunk([]byte(text), size) {
						if _, err := w.Write(piece); err != nil {
							return out, err
						}
					}
					if err := w.Close(); err != nil {
						return out, err
					}
					return appendText(out, clean.Bytes())
				})
			})
		},
	}
}

func guardEntitiesCommand() *cli.Command {
	return &cli.Command{
		Name:  "entities",
		Usage: "list what is found",
		Description: `Prints each label, the best score without and with context, whether a value
proves itself by a check digit or a rule, and words that are context. --json
prints [{"label","checked","score","with_context","context"}].

   phoenix guard entities`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if extra := cmd.Args().First(); extra != "" {
				return usagef("unexpected argument %q; see %s --help", extra, cmd.FullName())
			}
			all := guard.Entities()
			if cmd.Bool("json") {
				return json.NewEncoder(os.Stdout).Encode(all)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "LABEL\tSCORE\tWITH CONTEXT\tCHECKED\tCONTEXT")
			for _, e := range all {
				checked := ""
				if e.Checked {
					checked = "yes"
				}
				fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%s\t%s\n", e.Label, e.Score, e.WithContext, checked, strings.Join(e.Context[:min(6, len(e.Context))], " "))
			}
			return w.Flush()
		},
	}
}

// labels are those of all entities.
func labels() []string {
	var all []string
	for _, e := range guard.Entities() {
		all = append(all, e.Label)
	}
	return all
}

// checkLabels says which one is wanted if one of the labels is not known.
func checkLabels(all, known []string) error {
	for _, label := range all {
		if slices.Contains(known, label) {
			continue
		}
		near := yamlfile.Suggest(strings.ToUpper(label), known)
		if near == "" {
			near = ";"
		}
		return fmt.Errorf("there is no entity %q%s phoenix guard entities lists them", label, near)
	}
	return nil
}

// noArguments refuses arguments of a command that reads standard input: whoever
// gives it a file would wait for it.
func noArguments(cmd *cli.Command) error {
	if extra := cmd.Args().First(); extra != "" {
		return usagef("unexpected argument %q; lines are read from standard input", extra)
	}
	return nil
}

// policyFlag is for what phoenix guard serve will do, tried out on text.
func policyFlag() cli.Flag {
	return &cli.StringFlag{Name: "policy", Usage: "go by the policy `FILE` of phoenix guard serve: its names, domains, threshold and actions", TakesFile: true}
}

func newGuard(cmd *cli.Command) (*guard.Guard, error) {
	if path := cmd.String("policy"); path != "" {
		if cmd.IsSet("entities") {
			return nil, usagef("--entities and --policy both say what to look for; give one")
		}
		c, err := loadPolicy(path)
		return c.Guard, err
	}
	var p guard.Policy
	if cmd.IsSet("entities") {
		for _, label := range cmd.StringSlice("entities") {
			p.Entities = append(p.Entities, strings.TrimSpace(label))
		}
	}
	if err := checkLabels(p.Entities, labels()); err != nil {
		return nil, usageError{err.Error()}
	}
	g, err := guard.New(p)
	if err != nil {
		return nil, usageError{strings.TrimPrefix(err.Error(), "guard: ")}
	}
	return g, nil
}

func appendFindings(out []byte, text string, found []guard.Finding) []byte {
	out = append(out, '[')
	at, points := 0, 0
	offset := func(i int) int { // in code points; i never goes back far
		if i < at {
			at, points = 0, 0
		}
		points += utf8.RuneCountInString(text[at:i])
		at = i
		return points
	}
	for i, f := range found {
		if i > 0 {
			out = append(out, ',')
		}
		start := offset(f.Start)
		out = fmt.Appendf(out, `[%d,%d,%q,%g]`, start, start+utf8.RuneCountInString(text[f.Start:f.End]), f.Label, f.Score)
	}
	return append(out, ']')
}

// showFindings prints the file that the command names, or standard input, with
// the findings marked.
func showFindings(ctx context.Context, cmd *cli.Command, find func([]byte) []guard.Finding) error {
	var text []byte
	var err error
	switch cmd.Args().Len() {
	case 0:
		text, err = readStdin(ctx)
	case 1:
		text, err = os.ReadFile(cmd.Args().First())
	default:
		return usagef("%d files were given, want one", cmd.Args().Len())
	}
	if err != nil {
		return usagef("%v", err)
	}
	open, shut := "[[", "]]"
	if hasColours(os.Stdout) {
		open, shut = "\x1b[1;37;41m", "\x1b[0m"
	}
	show := func(b []byte) []byte { return b } // what a file gets is unchanged
	if isTerminal(os.Stdout) {
		show = shown
	}
	w := bufio.NewWriter(os.Stdout)
	at := 0
	for _, f := range find(text) {
		if f.Start < at {
			continue
		}
		fmt.Fprintf(w, "%s%s%s %s%s", show(text[at:f.Start]), open, show(text[f.Start:f.End]), f.Label, shut)
		at = f.End
	}
	_, _ = w.Write(show(text[at:])) // Flush tells
	return w.Flush()
}

// shown is text as visible shows it, but for tabs and the ends of lines.
func shown(text []byte) []byte {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		end := len(strings.TrimRight(line, "\r\n"))
		for i, part := range strings.Split(line[:end], "\t") {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(visible(part))
		}
		b.WriteString(line[end:])
	}
	return []byte(b.String())
}
