package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
)

func auditFlag() cli.Flag {
	return &cli.StringFlag{Name: "audit-log", Usage: "record audit events in the log `DIR`, which phoenix audit reads", Sources: cli.EnvVars("PHOENIX_AUDIT_LOG"), TakesFile: true}
}

// auditor records events where --audit-log says, or on another writer.
type auditor struct {
	auditlog.Recorder
	log *auditlog.Log // nil: none
}

// auditPatience is how long one command waits for another that writes to the
// same log.
const auditPatience = 10 * time.Second

// openAudit opens what --audit-log names. Without it events are written to
// other as text; if that is nil, nowhere.
func openAudit(ctx context.Context, cmd *cli.Command, other io.Writer) (*auditor, error) {
	dir := cmd.String("audit-log")
	switch {
	case dir == "" && other == nil:
		return &auditor{Recorder: auditlog.Slog(nil)}, nil
	case dir == "":
		return &auditor{Recorder: auditlog.Slog(slog.New(slog.NewTextHandler(other, nil)))}, nil
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, usagef("--audit-log: %s is a file; name a directory, which is made if it is not there", dir)
	}
	waiting, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	for {
		log, err := auditlog.Open(dir, auditlog.Config{SegmentSize: 1 << 20, Logger: warnings(os.Stderr)})
		if err == nil {
			return &auditor{Recorder: log, log: log}, nil
		}
		if !errors.Is(err, auditlog.ErrLocked) {
			return nil, usagef("--audit-log: %s", trimRoom(err))
		}
		select {
		case <-waiting.Done():
			return nil, fmt.Errorf("--audit-log: %s", trimRoom(err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close releases the log, every event of which is on the disk already.
func (a *auditor) Close() {
	if a.log == nil {
		return
	}
	if err := a.log.Close(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "phoenix: --audit-log:", trimRoom(err))
	}
}
