package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "write, read, deliver and verify an audit log that nobody can quietly change",
		Description: `Start here:
   phoenix audit key new audit.key
   phoenix audit append --signing-key audit.key /var/lib/phoenix/audit < events.jsonl
   phoenix audit verify /var/lib/phoenix/audit --key audit.pub --anchor /mnt/anchors`,
		Action: needsCommand,
		Commands: []*cli.Command{
			auditKeyCommand(),
			auditAppendCommand(),
			auditServeCommand(),
			auditCatCommand(),
			auditTailCommand(),
			auditStatusCommand(),
			auditShipCommand(),
			auditRedeliverCommand(),
			auditVerifyCommand(),
			auditProveCommand(),
			auditHashCommand(),
		},
	}
}

// auditDir is the directory of the log: the argument at index i, or --dir.
func auditDir(cmd *cli.Command, i int) (string, error) {
	args := cmd.Args().Slice()
	if len(args) > i+1 {
		return "", usagef("unexpected argument %q; see %s --help", args[i+1], cmd.FullName())
	}
	if len(args) == i+1 && args[i] != "" {
		return args[i], nil
	}
	if dir := cmd.String("dir"); dir != "" {
		return dir, nil
	}
	return "", usagef("the log's directory is missing; name it, or set PHOENIX_AUDIT_DIR")
}

// readableLog returns the directory of a log that is there.
func readableLog(cmd *cli.Command, i int) (string, fs.FS, error) {
	dir, err := auditDir(cmd, i)
	if err != nil {
		return "", nil, err
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", nil, usagef("the log's directory: %v", err)
	case !info.IsDir():
		return "", nil, usagef("%s is no directory; name the one that the log was opened in", dir)
	}
	return dir, os.DirFS(dir), nil
}

func noLog(dir string) error {
	return usagef("%s has no audit log; name the directory that the log was opened in", dir)
}

func auditDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "the log's `DIR`, if it is not an argument", Sources: cli.EnvVars("PHOENIX_AUDIT_DIR"), TakesFile: true}
}

func auditAppendCommand() *cli.Command {
	return &cli.Command{
		Name:      "append",
		Usage:     "append events from standard input, and print the ID of each when it is on the disk",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit append /var/lib/phoenix/audit < events.jsonl
   echo '{"category":"system","action":"deploy","outcome":"success"}' | phoenix audit append --signing-key audit.key --anchor /mnt/anchors DIR

A line is an event in JSON: time, id, service, environment, severity (emerg,
alert, crit, err, warning, notice, info, debug), category (authentication,
authorization, data_access, data_mutation, security, confirmation, system),
action, resource, actor {user, peer, client}, request_id, outcome (success,
failure, blocked, pending), attributes {name: value}. Only action is required;
time and id are filled in. A line that is none is reported with its number and
changes nothing; the others are appended, and the exit code is 2.

The log is made if it is not there. With --signing-key a checkpoint over all of
it is signed at the end, and with --anchor it is anchored.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "service", Usage: "for events that name no service"},
			&cli.StringFlag{Name: "environment", Usage: "for events that name no environment"},
		}, writerFlags()...),
		Action: auditAppend,
	}
}

// writerFlags are those of the commands that write a log.
func writerFlags() []cli.Flag {
	return append([]cli.Flag{
		auditDirFlag(),
		&cli.StringFlag{Name: "signing-key", Usage: "sign with the Ed25519 key in `FILE`, which phoenix audit key makes", TakesFile: true},
		&cli.StringSliceFlag{Name: "sensitive", Usage: "replace `FIELD` by its HMAC: user, peer, client, resource or an attribute; may be repeated"},
		&cli.StringFlag{Name: "hash-key", Usage: "the key of these HMACs: 32 bytes or more in `FILE`", TakesFile: true},
		&cli.Int64Flag{Name: "max-bytes", Usage: "bound on the log's size in bytes", DefaultText: "1 GiB"},
		&cli.Int64Flag{Name: "segment-size", Usage: "size of a segment in bytes", DefaultText: "16 MiB"},
		&cli.IntFlag{Name: "max-event", Usage: "largest event in bytes", DefaultText: "256 KiB"},
	}, anchorFlags()...)
}

// openLog opens the log that writerFlags describe. The signer is nil without a
// key.
func openLog(ctx context.Context, cmd *cli.Command, dir string) (_ *auditlog.Log, signer auditlog.Signer, err error) {
	cfg := auditlog.Config{
		Service: cmd.String("service"), Environment: cmd.String("environment"), Sensitive: cmd.StringSlice("sensitive"),
		MaxBytes: cmd.Int64("max-bytes"), SegmentSize: cmd.Int64("segment-size"), MaxEvent: cmd.Int("max-event"),
		Logger: warnings(os.Stderr),
	}
	if len(cfg.Sensitive) > 0 && cmd.String("hash-key") == "" {
		return nil, nil, usagef("--sensitive needs --hash-key FILE; make one with: (umask 077; openssl rand 32 > FILE)")
	}
	if file := cmd.String("hash-key"); file != "" {
		if cfg.Hasher, err = readHasher(file); err != nil {
			return nil, nil, err
		}
	}
	if file := cmd.String("signing-key"); file != "" {
		if signer, err = auditlog.FileSigner(file); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, usagef("--signing-key: there is no %s; make it with phoenix audit key new %s", file, file)
		} else if err != nil {
			return nil, nil, usagef("--signing-key: %v", trimRoom(err))
		}
	}
	if place := cmd.String("anchor"); place != "" {
		if cfg.Anchor, err = openAnchor(ctx, cmd, place); err != nil {
			return nil, nil, err
		}
	}
	log, err := auditlog.Open(dir, cfg)
	return log, signer, err
}

func auditAppend(ctx context.Context, cmd *cli.Command) (err error) {
	dir, err := auditDir(cmd, 0)
	if err != nil {
		return err
	}
	log, signer, err := openLog(ctx, cmd, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close(context.WithoutCancel(ctx))) }()
	if err := log.Attach(signer); err != nil {
		return err
	}
	return appendLines(ctx, log, os.Stdin, os.Stdout)
}

// appendLines appends each line of in and prints the IDs in that order, with
// some on their way to the disk at a time. When the log cannot take one it stops.
func appendLines(ctx context.Context, log *auditlog.Log, in io.Reader, out io.Writer) error {
	const ahead = 1024
	type submitted struct {
		line    int
		receipt *auditlog.Receipt
	}
	receipts := make(chan submitted, ahead)
	printed := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		w := bufio.NewWriter(out)
		var failed error
		for s := range receipts {
			if err := s.receipt.Wait(ctx); err != nil {
				if failed == nil { // one says it for all behind it
					failed = fmt.Errorf("line %d: %s; what has no ID is not in the log: append from that line on again", s.line, trimRoom(err))
					close(stop)
				}
				continue
			}
			fmt.Fprintln(w, s.receipt.ID())
			if len(receipts) == 0 {
				failed = errors.Join(failed, w.Flush())
			}
		}
		printed <- errors.Join(failed, w.Flush())
	}()
	var bad error
	lines := bufio.NewReaderSize(in, 64<<10)
	for number, stopped := 1, false; !stopped; number++ {
		line, long, err := readEventLine(lines)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				bad = errors.Join(bad, fmt.Errorf("standard input: %w", err))
			}
			break
		}
		if len(bytes.TrimSpace(line)) == 0 && !long {
			continue
		}
		var r *auditlog.Receipt
		err = auditlog.ErrTooLarge
		if !long {
			var e auditlog.Event
			if e, err = auditlog.ParseEvent(line); err == nil {
				r, err = log.Submit(ctx, e)
			}
		}
		if err == nil {
			select {
			case receipts <- submitted{number, r}:
			case <-stop:
				stopped = true
			}
			continue
		}
		if errors.Is(err, auditlog.ErrEvent) || errors.Is(err, auditlog.ErrTooLarge) {
			err = usagef("line %d: %v", number, trimRoom(err))
		}
		bad = errors.Join(bad, err)
		var usage usageError
		if !errors.As(err, &usage) {
			break
		}
	}
	close(receipts)
	return errors.Join(bad, <-printed)
}

// readEventLine returns the next line. Of one that no event can have, only that it
// was too long.
func readEventLine(r *bufio.Reader) (line []byte, long bool, err error) {
	const most = 8 << 20
	for {
		part, err := r.ReadSlice('\n')
		if !long {
			line = append(line, part...)
		}
		if long = long || len(line) > most; long {
			line = nil
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && (len(line) > 0 || long) {
			err = nil
		}
		return line, long, err
	}
}

func trimRoom(err error) string { return strings.TrimPrefix(err.Error(), "auditlog: ") }

func auditCatCommand() *cli.Command {
	return &cli.Command{
		Name:      "cat",
		Usage:     "print the events, the oldest first",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit cat /var/lib/phoenix/audit | jq 'select(.outcome == "blocked")'
   phoenix audit cat --format syslog DIR

Each event is a line. What cannot be read is reported, and the exit code is
then 1. It does not verify: phoenix audit verify does.`,
		Flags:  []cli.Flag{auditDirFlag(), formatFlag()},
		Action: auditCat,
	}
}

func formatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "json, or syslog for RFC 5424", Value: "json"}
}

// printer returns what writes an event as a line.
func printer(cmd *cli.Command, w io.Writer) (func(auditlog.Entry) error, error) {
	switch format := cmd.String("format"); format {
	case "json":
		return func(e auditlog.Entry) error {
			_, err := w.Write(append(slices.Clone(e.JSON), '\n'))
			return err
		}, nil
	case "syslog":
		var line []byte
		return func(e auditlog.Entry) error {
			event, err := e.Event()
			if err != nil {
				return err
			}
			line = append(event.AppendSyslog(line[:0], auditlog.Syslog{}), '\n')
			_, err = w.Write(line)
			return err
		}, nil
	default:
		return nil, usagef("--format is %q; it must be json or syslog", format)
	}
}

func auditCat(ctx context.Context, cmd *cli.Command) error {
	dir, fsys, err := readableLog(cmd, 0)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(os.Stdout)
	show, err := printer(cmd, w)
	if err != nil {
		return err
	}
	var damaged error
	empty := true // not even the record that a log begins with
	for e, err := range auditlog.Read(fsys, func(text string) { damaged = errors.Join(damaged, errors.New(text)) }) {
		empty = false
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && e.Kind == auditlog.KindEvent {
			err = show(e)
		}
		if err != nil {
			return err
		}
	}
	if empty && damaged == nil {
		return noLog(dir)
	}
	return errors.Join(w.Flush(), damaged)
}

func auditTailCommand() *cli.Command {
	return &cli.Command{
		Name:      "tail",
		Usage:     "print the last events, and with -f those that come",
		ArgsUsage: "[DIR]",
		Description: `Examples:
   phoenix audit tail /var/lib/phoenix/audit
   phoenix audit tail -f -n 0 DIR`,
		Flags: []cli.Flag{
			auditDirFlag(), formatFlag(),
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until it is interrupted"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Usage: "how many of those that are there", Value: 10},
		},
		Action: auditTail,
	}
}

func auditTail(ctx context.Context, cmd *cli.Command) error {
	_, fsys, err := readableLog(cmd, 0)
	if err != nil {
		return err
	}
	show, err := printer(cmd, stdout(cmd))
	if err != nil {
		return err
	}
	most := cmd.Int("lines")
	if most < 0 {
		return usagef("--lines must not be negative")
	}
	report := func(text string) { fmt.Fprintln(os.Stderr, "phoenix: "+text) }
	var last []auditlog.Entry
	follow := cmd.Bool("follow")
	waiting := func() error {
		for _, e := range last {
			if err := show(e); err != nil {
				return err
			}
		}
		last = nil
		return nil
	}
	caughtUp := false
	for e, err := range auditlog.Follow(ctx, fsys, 100*time.Millisecond, func() bool { caughtUp = true; return waiting() == nil && follow }, report) {
		switch {
		case err != nil:
			return err
		case e.Kind != auditlog.KindEvent:
		case caughtUp:
			if err := show(e); err != nil {
				return err
			}
		case most > 0:
			e.JSON = slices.Clone(e.JSON)
			if last = append(last, e); len(last) > most {
				last = last[1:]
			}
		}
	}
	return nil
}

func auditHashCommand() *cli.Command {
	return &cli.Command{
		Name:      "hash",
		Usage:     "print what stands in a log for a sensitive value, or the events that have it",
		ArgsUsage: "[VALUE]",
		Description: `Examples:
   phoenix audit hash --hash-key audit.hmac < value
   phoenix audit hash --hash-key audit.hmac --in /var/lib/phoenix/audit alice@example.com

The value is better given on standard input: others can read a command line.
With --in the events that have it are printed, and the exit code is 1 if there
are none.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "in", Usage: "print the events in the log `DIR` that have the value", TakesFile: true},
			&cli.StringFlag{Name: "hash-key", Usage: "the key: 32 bytes or more in `FILE`", TakesFile: true, Sources: cli.EnvVars("PHOENIX_AUDIT_HASH_KEY")},
		},
		Action: auditHash,
	}
}

func readHasher(file string) (*auditlog.Hasher, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("--hash-key: there is no %s; make it with: (umask 077; openssl rand 32 > %s)", file, file)
	}
	if err != nil {
		return nil, usagef("--hash-key: %v", err)
	}
	defer clear(data)
	h, err := auditlog.NewHasher(data)
	if err != nil {
		return nil, usagef("--hash-key %s: %v", file, trimRoom(err))
	}
	// Who has the log and the key can try names until one fits.
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, usagef("--hash-key: others can read %s; chmod 600 %s, and replace it if somebody has", file, file)
	}
	return h, nil
}

func auditHash(ctx context.Context, cmd *cli.Command) error {
	file := cmd.String("hash-key")
	if file == "" {
		return usagef("--hash-key is missing; name the file with the key that the log was written with")
	}
	h, err := readHasher(file)
	if err != nil {
		return err
	}
	value := cmd.Args().First()
	if cmd.Args().Len() > 1 {
		return usagef("unexpected argument %q; quote the value", cmd.Args().Get(1))
	}
	if cmd.Args().Len() == 0 {
		data, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		if err != nil {
			return err
		}
		value = strings.TrimRight(string(data), "\r\n")
	}
	if value == "" {
		return usagef("there is no value; give it on standard input")
	}
	hash := h.Hash(value)
	dir := cmd.String("in")
	if dir == "" {
		_, err := fmt.Fprintln(os.Stdout, hash)
		return err
	}
	found := false
	for e, err := range auditlog.Read(os.DirFS(dir), nil) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if e.Kind == auditlog.KindEvent && bytes.Contains(e.JSON, []byte(`"`+hash+`"`)) {
			found = true
			if _, err := os.Stdout.Write(append(slices.Clone(e.JSON), '\n')); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("no event in %s has that value, or it was hashed with another key", dir)
	}
	return nil
}

func jsonOut(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
