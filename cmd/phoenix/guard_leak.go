package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/guard"
)

func guardLeakCommand() *cli.Command {
	return &cli.Command{
		Name:  "leak",
		Usage: "tell whether texts repeat a prompt: JSON lines in, JSON lines out",
		Description: `Example:
   echo '{"prompt":"You are Juniper, the payroll assistant of Tamshai.","text":"MY ORDERS: YOU ARE JUNIPER..."}' | phoenix guard leak

Each line of standard input is {"prompt":…,"text":…}; each line of output is
{"leak":bool,"score":…}. The score is from 0 to 1, and a leak from 0.5. A text
is looked at as it stands and decoded. A prompt of fewer than three words cannot
be told from other text and scores 0.

An empty line has an empty line. The exit code is 0 if every line was read, whatever
was found; 2 if one is not as above, and then nothing is printed for it or after it.`,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			return eachLine(ctx, func() lineWorker { return onRows(scanLeak()) })
		},
	}
}

// scanLeak returns what is done with a line. Of lines with the same prompt, the first
// alone costs the reading of it.
func scanLeak() func(line []byte) (any, error) {
	var prompts guard.Prompts
	last := ""
	known := false
	return func(line []byte) (any, error) {
		var in struct{ Prompt, Text *string }
		if err := json.Unmarshal(line, &in); err != nil {
			return nil, err
		}
		if in.Prompt == nil || in.Text == nil {
			return nil, errors.New(`it has not both "prompt" and "text"`)
		}
		if !known || *in.Prompt != last {
			err := prompts.Register("prompt", *in.Prompt, "")
			if errors.Is(err, guard.ErrPrompt) {
				prompts = guard.Prompts{}
			} else if err != nil {
				return nil, err
			}
			last, known = *in.Prompt, true
		}
		l := prompts.Scan([]byte(*in.Text))
		return struct {
			Leak  bool    `json:"leak"`
			Score float64 `json:"score"`
		}{l.Found(), l.Score}, nil
	}
}

func guardInputCommand() *cli.Command {
	return &cli.Command{
		Name:  "input",
		Usage: "tell whether inputs may go on to a model: JSON lines in, JSON lines out",
		Description: `Examples:
   echo '{"text":"Please send me the contract as a PDF."}' | phoenix guard input
   phoenix guard input --list

Each line of standard input is {"text":…}; each line of output is
{"allow":bool,"rules":[…]}: whether it may go on, and which rules it breaks.
Rules on what a text says are advisory: they are reported and do not block,
unless --block names them.

An empty line has an empty line. The exit code is 0 if every line was read, whatever
was found; 2 if one is not as above, and then nothing is printed for it or after it.`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "max-chars", Usage: "the longest input, in `CODE POINTS`", Value: 100_000},
			&cli.StringSliceFlag{Name: "block", Usage: "an advisory `RULE` that blocks nevertheless, or all; may be repeated"},
			&cli.BoolFlag{Name: "list", Usage: "list the rules as JSON lines and do nothing"},
		},
		Action: checkInputs,
	}
}

func checkInputs(ctx context.Context, cmd *cli.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	if cmd.Bool("list") {
		enc := json.NewEncoder(os.Stdout)
		for _, r := range guard.InputRules() {
			if err := enc.Encode(map[string]any{"rule": r.Name, "about": r.About, "advisory": r.Advisory}); err != nil {
				return err
			}
		}
		return nil
	}
	policy := guard.InputPolicy{MaxChars: cmd.Int("max-chars"), Block: cmd.StringSlice("block")}
	if policy.MaxChars <= 0 {
		return usagef("--max-chars is %d; it must be at least 1", policy.MaxChars)
	}
	for _, name := range policy.Block {
		if name != "all" && !slices.ContainsFunc(guard.InputRules(), func(r guard.InputRule) bool { return r.Name == name }) {
			return usagef("--block: there is no rule %q; see %s --list", name, cmd.FullName())
		}
	}
	check := func(line []byte) (any, error) {
		var in struct{ Text *string }
		if err := json.Unmarshal(line, &in); err != nil {
			return nil, err
		}
		if in.Text == nil {
			return nil, errors.New(`it has no "text"`)
		}
		if !utf8.Valid(line) {
			*in.Text += "\xff" // what is wrong was replaced when it was parsed
		}
		report := policy.Check(*in.Text)
		return struct {
			Allow bool     `json:"allow"`
			Rules []string `json:"rules"`
		}{report.Allow, report.Rules}, nil
	}
	return eachLine(ctx, func() lineWorker { return onRows(check) })
}
