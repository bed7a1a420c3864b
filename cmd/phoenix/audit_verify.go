package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
)

// A codedError ends with an exit code of its own.
type codedError struct {
	text string
	code int
}

func (e codedError) Error() string { return e.text }

// warnings returns a logger for what an operator should know.
func warnings(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func keyFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "key", Usage: "the public key in `FILE` that checkpoints may be signed with, as phoenix audit key prints it; may be repeated", TakesFile: true, Sources: cli.EnvVars("PHOENIX_AUDIT_KEY")}
}

func publicKeys(cmd *cli.Command) ([]ed25519.PublicKey, error) {
	var out []ed25519.PublicKey
	for _, file := range cmd.StringSlice("key") {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("--key: %v", err)
		}
		keys, err := auditlog.ParsePublicKeys(data)
		if err != nil {
			return nil, usagef("--key %s: %s", file, trimRoom(err))
		}
		out = append(out, keys...)
	}
	return out, nil
}

func auditVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "verify a whole log, and name the first bad event",
		ArgsUsage: "DIR|s3://BUCKET/PREFIX",
		Description: `Examples:
   phoenix audit verify /var/lib/phoenix/audit --key audit.pub --anchor /mnt/anchors
   phoenix audit verify s3://audit/mcp-hr --key audit.pub
   phoenix audit verify DIR --anchor s3://audit/mcp-hr --json

In a bucket it reads the oldest version of each object, and finds the anchors
beside the log. Amazon's credentials come from the environment, its shared
files or the instance. Without --key the checkpoints' own keys are believed, and
without --anchor who has the signing key could have sealed another history: the
notes say so. Events that no checkpoint covers yet are no damage; they are
counted. PLACE is of this log alone. A host that was wiped and made again has no
more than its last epoch: earlier ones may be missing as soon as that is
anchored, unless --all-epochs is given.

Exit codes: 0 sound; 10 edited, 11 dropped, 12 reordered, 13 truncated, 14
re-sealed, 15 wrong key, 16 anchor missing; 2 usage; 3 the bucket cannot be read.

With --json it prints {findings: [{damage, epoch, seq, event, after, file,
text}], epochs: [{epoch, service, host, began, first, last, events, sealed,
anchored, unsealed, unanchored, first_unanchored, closed, follows}], notes,
records, events, bytes}; the first finding decides the exit code.`,
		Flags: append([]cli.Flag{
			auditDirFlag(), keyFlag(),
			&cli.StringFlag{Name: "anchor", Usage: "the `PLACE` of the anchored checkpoints: a directory, or s3://bucket/prefix", TakesFile: true},
			&cli.BoolFlag{Name: "all-epochs", Usage: "fail unless every anchored epoch is here, as it is in an archive and always in s3://"},
			&cli.BoolFlag{Name: "json", Usage: "print the report in JSON"},
		}, s3Flags()...),
		Action: auditVerify,
	}
}

func auditVerify(ctx context.Context, cmd *cli.Command) error {
	cfg := auditlog.VerifyConfig{}
	var err error
	if cfg.Keys, err = publicKeys(cmd); err != nil {
		return err
	}
	dir, fsys, anchors, err := verifiable(ctx, cmd)
	if err != nil {
		return err
	}
	cfg.Anchors = anchors
	cfg.AllEpochs = cmd.Bool("all-epochs") || strings.HasPrefix(dir, "s3://")
	report, err := auditlog.Verify(ctx, fsys, cfg)
	if err != nil {
		return unreachable(err)
	}
	noteUnlocked(report, fsys)
	if len(report.Epochs) == 0 && len(report.Findings) == 0 {
		return noLog(dir)
	}
	if anchors != nil && len(report.Findings) == 0 {
		// Where there is nothing, nothing contradicts the log: it may be misspelt.
		if _, err := fs.Stat(anchors, "."); errors.Is(err, fs.ErrNotExist) {
			return usagef("--anchor: there is no %s; name the place that the log's checkpoints are anchored in", cmd.String("anchor"))
		}
	}
	if cmd.Bool("json") {
		err = jsonOut(report)
	} else {
		err = printVerified(os.Stdout, report)
	}
	if err != nil || len(report.Findings) == 0 {
		return err
	}
	first := report.Findings[0]
	return codedError{fmt.Sprintf("the log in %s is damaged: %s; keep a copy of it as it is, and compare with what the sinks have", dir, describe(first)), first.Damage.ExitCode()}
}

func describe(f auditlog.Finding) string {
	text := fmt.Sprintf("%s at record %d of epoch %s", f.Damage, f.Seq, f.Epoch)
	if f.ID != "" {
		text += ", event " + f.ID
	} else if f.After != "" {
		text += ", after event " + f.After
	}
	return text + ": " + f.Text
}

func printVerified(w io.Writer, r *auditlog.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "EPOCH\tRECORDS\tEVENTS\tSEALED TO\tANCHORED TO\tEVENTS AFTER THAT\tCLOSED")
	for _, e := range r.Epochs {
		closed := "no"
		if e.Closed {
			closed = "yes"
		}
		records := "not here"
		if e.Last > 0 {
			records = fmt.Sprintf("%d-%d", e.First, e.Last)
		}
		after := fmt.Sprintf("%d unsealed, %d unanchored", e.Unsealed, e.Open)
		if e.FirstOpen != "" {
			after += ", from " + e.FirstOpen
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", e.Epoch, records, e.Events, e.Sealed, e.Anchored, after, closed)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "note:", note)
	}
	for _, f := range r.Findings {
		fmt.Fprintln(w, "damage:", describe(f))
	}
	if len(r.Findings) == 0 {
		fmt.Fprintf(w, "sound: %d events in %d epochs\n", r.Events, len(r.Epochs))
	}
	return nil
}

func auditStatusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show how far a log is sealed, anchored and delivered",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit status /var/lib/phoenix/audit
   phoenix audit status --require-delivered DIR && ./wipe-the-host

With --require-delivered the exit code is 1 unless there is a sink and every
sink, or each that --sink names, has taken every event. With --json it prints
{epoch, seq, events, bytes, sealed, anchored, unsealed, dropped, damage, sinks:
[{name, confirmed, delivered, rejected, backlog, lag}]}; lag is in seconds.`,
		Flags: []cli.Flag{
			auditDirFlag(),
			&cli.BoolFlag{Name: "require-delivered", Usage: "fail unless everything is delivered"},
			&cli.StringSliceFlag{Name: "sink", Usage: "require it of the sink `NAME` alone; may be repeated"},
			&cli.BoolFlag{Name: "accept-rejected", Usage: "count events that a sink refused for good as delivered"},
			&cli.BoolFlag{Name: "json", Usage: "print it in JSON"},
		},
		Action: auditStatus,
	}
}

func auditStatus(_ context.Context, cmd *cli.Command) error {
	dir, fsys, err := readableLog(cmd, 0)
	if err != nil {
		return err
	}
	status, err := auditlog.Inspect(fsys)
	if err != nil {
		return err
	}
	if status.Epoch == "" {
		return noLog(dir)
	}
	if cmd.Bool("json") {
		err = jsonOut(status)
	} else {
		err = printStatus(os.Stdout, status)
	}
	if err != nil {
		return err
	}
	var problems error
	for _, text := range status.Damage {
		problems = errors.Join(problems, fmt.Errorf("%s; phoenix audit verify tells more", text))
	}
	if cmd.Bool("require-delivered") {
		problems = errors.Join(problems, requireDelivered(status, cmd.StringSlice("sink"), cmd.Bool("accept-rejected")))
	}
	return problems
}

func printStatus(w io.Writer, s auditlog.Status) error {
	fmt.Fprintf(w, "epoch %s: %d events, %d records, %d bytes on the disk\n", s.Epoch, s.Events, s.Seq, s.Bytes)
	fmt.Fprintf(w, "sealed to record %d, anchored to %d; %d records are not sealed yet\n", s.Sealed, s.Anchored, s.Unsealed)
	for category, n := range s.Dropped {
		fmt.Fprintf(w, "dropped: %d of %s\n", n, category)
	}
	if len(s.Sinks) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SINK\tDELIVERED\tREJECTED\tBACKLOG\tLAG")
	for _, sink := range s.Sinks {
		delivered := fmt.Sprint(sink.Delivered)
		if !sink.Confirmed {
			delivered += " (sent)"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", sink.Name, delivered, sink.Rejected, sink.Backlog, time.Duration(sink.Lag*float64(time.Second)).Round(time.Second))
	}
	return t.Flush()
}

func auditProveCommand() *cli.Command {
	return &cli.Command{
		Name:      "prove",
		Usage:     "prove that an event is in a log, or check such a proof",
		ArgsUsage: "EVENT [DIR]",
		Description: `Examples:
   phoenix audit prove 0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60 /var/lib/phoenix/audit > proof.json
   phoenix audit prove --check proof.json --key audit.pub

EVENT is the event's ID. The proof is JSON {epoch, seq, event, path, checkpoint,
key, signature}. Checking it needs the public key and nothing else; it prints
the event. Who checks it with a program of their own: signature is Ed25519 over
"phoenix audit checkpoint v1\n" and checkpoint; the leaf is SHA-256 of a zero byte,
"E" and event; path leads from it to the checkpoint's root as in RFC 9162, section
2.1.3.2, for leaf seq - segment in a tree of to - segment + 1. The exit code is 1
if the event is not there or not sealed yet, or if the proof does not hold.`,
		Flags: []cli.Flag{
			auditDirFlag(), keyFlag(),
			&cli.StringFlag{Name: "check", Usage: "check the proof in `FILE` (- for standard input)", TakesFile: true},
		},
		Action: auditProve,
	}
}

func auditProve(_ context.Context, cmd *cli.Command) error {
	if file := cmd.String("check"); file != "" {
		return checkProof(cmd, file)
	}
	id := cmd.Args().First()
	if id == "" {
		return usagef("the event is missing; give its ID")
	}
	dir, fsys, err := readableLog(cmd, 1)
	if err != nil {
		return err
	}
	proof, err := auditlog.Prove(fsys, id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no event in %s has the ID %s; phoenix audit cat lists them", dir, id)
	case errors.Is(err, auditlog.ErrNotSealed):
		return fmt.Errorf("no checkpoint covers event %s yet; wait for the next one, or sign with phoenix audit append --signing-key, which phoenix audit key new makes", id)
	case err != nil:
		return err
	}
	return jsonOut(proof)
}

func checkProof(cmd *cli.Command, file string) error {
	if cmd.Args().Len() > 0 {
		return usagef("unexpected argument %q; --check takes a file and --key", cmd.Args().First())
	}
	keys, err := publicKeys(cmd)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return usagef("--key is missing; a proof is checked with a public key from elsewhere, such as phoenix audit key public printed on the host")
	}
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return usagef("--check: %v", err)
		}
		defer f.Close()
		in = f
	}
	var proof auditlog.Proof
	if err := json.NewDecoder(in).Decode(&proof); err != nil {
		return usagef("--check %s: this is no proof: %v", file, err)
	}
	if err := proof.Check(keys); err != nil {
		return errors.New(strings.TrimSpace(trimRoom(err)))
	}
	_, err = fmt.Fprintln(os.Stdout, proof.Event)
	return err
}
