package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/s3lock"
)

// s3Flags say how s3:// places are reached. Credentials come from where the
// SDK looks for them, and never from the command line.
func s3Flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "s3-endpoint", Usage: "the `URL` of an S3 service that is not Amazon's", Sources: cli.EnvVars("PHOENIX_S3_ENDPOINT")},
		&cli.StringFlag{Name: "s3-region", Usage: "the bucket's `REGION`, if not that of AWS_REGION", Sources: cli.EnvVars("PHOENIX_S3_REGION")},
	}
}

// anchorFlags say where checkpoints are anchored.
func anchorFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "anchor", Usage: "anchor checkpoints in a write-once `PLACE`: a directory, or s3://bucket/prefix with Object Lock", TakesFile: true},
		&cli.StringFlag{Name: "retain", Usage: "how long what is anchored in s3:// is locked, as in 365d"},
	}, s3Flags()...)
}

// openAnchor returns the anchor at a place, which --anchor or a file names.
func openAnchor(ctx context.Context, cmd *cli.Command, place string) (auditlog.Anchor, error) {
	bucket, prefix, is, err := parseS3(place)
	if err != nil {
		return nil, err
	}
	if !is {
		anchor, err := auditlog.DirAnchor(place)
		if err != nil {
			return nil, usagef("the anchor: %s", trimRoom(err))
		}
		return anchor, nil
	}
	retain, err := parseSpan(cmd.String("retain"))
	if err != nil || retain <= 0 {
		return nil, usagef("--retain is %q; say how long what is anchored in %s is locked, as in 365d", cmd.String("retain"), place)
	}
	client, err := s3lock.Client(ctx, cmd.String("s3-region"), cmd.String("s3-endpoint"))
	if err == nil {
		var sink *s3lock.Sink
		if sink, err = s3lock.New(s3lock.Config{Client: client, Bucket: bucket, Prefix: prefix, Retain: retain}); err == nil {
			return sink, nil
		}
	}
	return nil, usagef("%s: %v", place, strings.TrimPrefix(err.Error(), "s3lock: "))
}

// parseS3 splits s3://bucket/prefix.
func parseS3(place string) (bucket, prefix string, is bool, err error) {
	rest, is := strings.CutPrefix(place, "s3://")
	if !is {
		return "", "", false, nil
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	if bucket == "" || strings.ContainsAny(rest, "?#@ ") {
		return "", "", true, usagef("%q is no place in a bucket; it is like s3://bucket/prefix", place)
	}
	return bucket, strings.Trim(prefix, "/"), true, nil
}

// openPlace returns what is in a directory or under s3://bucket/prefix.
func openPlace(ctx context.Context, cmd *cli.Command, place string) (fs.FS, error) {
	bucket, prefix, is, err := parseS3(place)
	if err != nil {
		return nil, err
	}
	if !is {
		return os.DirFS(place), nil
	}
	client, err := s3lock.Client(ctx, cmd.String("s3-region"), cmd.String("s3-endpoint"))
	if err != nil {
		return nil, usagef("%s: %v", place, strings.TrimPrefix(err.Error(), "s3lock: "))
	}
	fsys, err := s3lock.NewFS(ctx, client, bucket, prefix)
	if err != nil {
		return nil, unreachableError{err} // or not for us: nothing was verified
	}
	return fsys, nil
}

// unreachable marks an error of the network as such.
func unreachable(err error) error {
	var network net.Error
	if errors.As(err, &network) {
		if _, local := network.(syscall.Errno); !local { // what a disk says looks like one
			return unreachableError{err}
		}
	}
	return err
}

// verifiable returns the log to verify and, if there are any, its anchors.
func verifiable(ctx context.Context, cmd *cli.Command) (place string, log, anchors fs.FS, err error) {
	place = cmd.Args().First()
	if strings.HasPrefix(place, "s3://") {
		if cmd.Args().Len() > 1 {
			return "", nil, nil, usagef("unexpected argument %q; see %s --help", cmd.Args().Get(1), cmd.FullName())
		}
		if log, err = openPlace(ctx, cmd, place); err != nil {
			return "", nil, nil, err
		}
		// The sink anchors beside the log.
		if info, err := fs.Stat(log, "anchors"); err == nil && info.IsDir() {
			if anchors, err = fs.Sub(log, "anchors"); err != nil {
				return "", nil, nil, err
			}
		}
	} else if place, log, err = readableLog(cmd, 0); err != nil {
		return "", nil, nil, err
	}
	if at := cmd.String("anchor"); at != "" {
		if anchors, err = openPlace(ctx, cmd, at); err != nil {
			return "", nil, nil, err
		}
		if in, ok := anchors.(*s3lock.FS); ok {
			// The log's own place, or that of the anchors in it.
			if info, err := fs.Stat(in, "anchors"); err == nil && info.IsDir() {
				if anchors, err = fs.Sub(in, "anchors"); err != nil {
					return "", nil, nil, err
				}
			}
		}
	}
	return place, log, anchors, nil
}

// noteUnlocked says what in a bucket could be removed.
func noteUnlocked(r *auditlog.Report, log fs.FS) {
	in, ok := log.(*s3lock.FS)
	if !ok {
		return
	}
	if names := in.Unlocked(); len(names) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d objects are not locked, or no longer, and can be removed; the first is %s", len(names), names[0]))
	}
}
