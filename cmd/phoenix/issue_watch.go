package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/sdnotify"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
)

// watchFlags are those of the resident issuer.
func watchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Category: "Resident issuer", Name: "watch", Usage: "stay, and keep a fresh SecretID in each service's file"},
		&cli.BoolFlag{Category: "Resident issuer", Name: "issuer", Usage: "issue the resident issuer's own credential"},
		&cli.StringFlag{Category: "Resident issuer", Name: "credentials", Usage: "log in with the `FILE` that --issuer wrote; $CREDENTIALS_DIRECTORY/phoenix-issuer without it", TakesFile: true},
		&cli.IntFlag{Category: "Resident issuer", Name: "burst", Usage: "a service gets this `MANY` at once before it is put off", Value: 5},
		&cli.DurationFlag{Category: "Resident issuer", Name: "every", Usage: "and then one each `TIME`", Value: time.Minute},
		&cli.StringFlag{Category: "Resident issuer", Name: "owner", Usage: "give the files to `UID:GID`; otherwise to the owner of their folder"},
		&cli.BoolFlag{Category: "Resident issuer", Name: "disk", Usage: "permit folders on a disk"},
	}
}

// issueCredential issues what the resident issuer logs in with.
func issueCredential(ctx context.Context, cmd *cli.Command, estate *provision.Estate) error {
	if cmd.Bool("all") || len(cmd.StringSlice("service")) > 0 {
		return usagef("--issuer issues for the resident issuer alone; leave out --all and --service")
	}
	if estate.Issuer == nil {
		return usagef("%s has no resident issuer; add vault.issuer to it, and run phoenix provision apply", estate.File)
	}
	return issueTo(ctx, cmd, estate, []string{estate.Issuer.Role}, func(ctx context.Context, client *vault.Client, audit auditlog.Recorder) ([]provision.Issued, error) {
		one, err := provision.IssueCredential(ctx, client, estate, audit)
		return []provision.Issued{one}, err
	})
}

// statusEvery is how often the issuer's status is looked at for changes.
const statusEvery = time.Second

// watchIssue runs the resident issuer until it is told to end.
func watchIssue(ctx context.Context, cmd *cli.Command, estate *provision.Estate) (err error) {
	cfg, err := issuerConfig(cmd, estate)
	if err != nil {
		return err
	}
	audit, err := openAudit(ctx, cmd, os.Stderr)
	if err != nil {
		return err
	}
	defer audit.Close()
	cfg.Audit = audit
	var handler slog.Handler = slog.NewTextHandler(os.Stderr, nil)
	if cmd.Bool("json") {
		handler = slog.NewJSONHandler(os.Stderr, nil)
	}
	cfg.Logger = slog.New(handler)
	client, err := issuerClient(cmd, cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	issuer, err := provision.NewIssuer(client, estate, cfg)
	if err != nil {
		return usagef("%v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() { defer close(told); tellStatus(ctx, issuer, cfg.Logger) }()
	defer func() { cancel(); <-told }()
	return issuer.Run(ctx)
}

// issuerClient is a client without a token if there is a credential to log in
// with, and otherwise one with the given token.
func issuerClient(cmd *cli.Command, cfg provision.IssuerConfig) (*vault.Client, error) {
	vc, err := vaultConfig(cmd)
	if err != nil {
		return nil, err
	}
	vc.Logger = cfg.Logger
	client, err := vault.New(vc)
	if err != nil {
		return nil, usagef("%v", err)
	}
	if cfg.Credential != nil {
		return client, nil
	}
	token, err := operatorToken(cmd)
	if err != nil {
		return nil, err
	}
	return client.WithToken(token)
}

func issuerConfig(cmd *cli.Command, estate *provision.Estate) (provision.IssuerConfig, error) {
	cfg := provision.IssuerConfig{
		Path: cmd.String("out"), Services: cmd.StringSlice("service"), WrapTTL: cmd.Duration("ttl"),
		Burst: cmd.Int("burst"), Every: cmd.Duration("every"), Disk: cmd.Bool("disk"),
		Beat: func() { _ = sdnotify.Notify(sdnotify.Watchdog) }, // a supervisor that is not there misses nothing
	}
	switch {
	case cfg.Path == "":
		return cfg, usagef("--watch needs --out; give a folder, or a pattern like /run/phoenix/{service}/{service}.env")
	case cmd.String("seal") != "" || cmd.Args().Present():
		return cfg, usagef("--watch writes files; leave out --seal and CMD")
	case cmd.Bool("all"):
		cfg.Services = estate.ServiceNames()
	case len(cfg.Services) == 0:
		cfg.Services = nil // as the estate says
	}
	if info, err := os.Stat(cfg.Path); strings.HasSuffix(cfg.Path, "/") || err == nil && info.IsDir() {
		cfg.Path = filepath.Join(cfg.Path, "{service}.env") // also below /run/phoenix/{service}/
	}
	if text := cmd.String("owner"); text != "" {
		user, group, _ := strings.Cut(text, ":")
		uid, err := strconv.ParseUint(user, 10, 31)
		gid, err2 := strconv.ParseUint(group, 10, 31)
		if err != nil || err2 != nil {
			return cfg, usagef("--owner %s: write it in numbers, like 1001:1001", text)
		}
		cfg.Owner = &provision.Owner{UID: int(uid), GID: int(gid)}
	}
	path := cmd.String("credentials")
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); path == "" && dir != "" {
		path = filepath.Join(dir, "phoenix-issuer")
	}
	if path != "" {
		cfg.Credential = provision.CredentialFile(estate, path)
		if _, err := cfg.Credential(); err != nil {
			return cfg, usagef("--credentials: %v", err)
		}
	}
	return cfg, nil
}

// tellStatus logs the issuer's status when it changes, and tells systemd.
func tellStatus(ctx context.Context, issuer *provision.Issuer, log *slog.Logger) {
	last, ready := "", false
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for {
		st := issuer.Status()
		if text := st.String(); text != last {
			last = text
			if problem := st.Err(); problem != nil {
				//nolint:sloglint // how it stands is the message
				log.Warn(text, "reason", strings.ReplaceAll(problem.Error(), "\n", "; "))
			} else {
				log.Info(text) //nolint:sloglint // as above
			}
			if err := sdnotify.Notify(sdnotify.Status(text)); err != nil {
				log.Warn("systemd cannot be told", "error", err)
			}
		}
		if !ready && st.Reason == nil && st.Err() == nil {
			ready = true
			_ = sdnotify.Notify(sdnotify.Ready) // its failure was logged with the status
		}
		select {
		case <-ctx.Done():
			_ = sdnotify.Notify(sdnotify.Stopping)
			return
		case <-ticker.C:
		}
	}
}
