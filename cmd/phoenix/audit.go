package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
)

func auditFlag() cli.Flag {
	return &cli.StringFlag{Name: "audit-log", Usage: "append audit events to `FILE`, a JSON object on a line", Sources: cli.EnvVars("PHOENIX_AUDIT_LOG"), TakesFile: true}
}

// auditor records events where --audit-log says, or on another writer.
type auditor struct {
	auditlog.Recorder
	mu   sync.Mutex
	file *os.File // nil: none
}

// openAudit opens what --audit-log names. Without it events are written to
// other as text; if that is nil, nowhere.
func openAudit(cmd *cli.Command, other io.Writer) (*auditor, error) {
	path := cmd.String("audit-log")
	switch {
	case path == "" && other == nil:
		return &auditor{Recorder: auditlog.Slog(nil)}, nil
	case path == "":
		return &auditor{Recorder: auditlog.Slog(slog.New(slog.NewTextHandler(other, nil)))}, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, usagef("--audit-log: %v", err)
	}
	return &auditor{Recorder: auditlog.Slog(slog.New(slog.NewJSONHandler(f, nil))), file: f}, nil
}

// Append returns when the event is on the disk.
func (a *auditor) Append(ctx context.Context, e auditlog.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.Recorder.Append(ctx, e); err != nil || a.file == nil {
		return err
	}
	return a.file.Sync()
}

func (a *auditor) Close() {
	if a.file != nil {
		_ = a.file.Close() // every event has been synced
	}
}
