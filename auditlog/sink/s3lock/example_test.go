package s3lock_test

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/s3lock"
)

func ExampleNew() {
	ctx := context.Background()
	client, err := s3lock.Client(ctx, "eu-central-1", "")
	if err != nil {
		log.Fatal(err)
	}
	sink, err := s3lock.New(s3lock.Config{Client: client, Bucket: "audit", Prefix: "mcp-hr", Retain: 365 * 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	// Delivers and anchors what another process records, until the context ends.
	err = auditlog.Ship(ctx, "/var/lib/phoenix/audit", auditlog.ShipConfig{Sinks: []auditlog.Sink{sink}})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleNewFS() {
	ctx := context.Background()
	client, err := s3lock.Client(ctx, "eu-central-1", "")
	if err != nil {
		log.Fatal(err)
	}
	fsys, err := s3lock.NewFS(ctx, client, "audit", "mcp-hr")
	if err != nil {
		log.Fatal(err)
	}
	anchors, err := fs.Sub(fsys, "anchors")
	if err != nil {
		log.Fatal(err)
	}
	report, err := auditlog.Verify(ctx, fsys, auditlog.VerifyConfig{Anchors: anchors})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Events, report.Err())
}
