package cloudwatch_test

import (
	"context"
	"log"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/cloudwatch"
)

func ExampleNew() {
	ctx := context.Background()
	client, err := cloudwatch.Client(ctx, "eu-central-1", "")
	if err != nil {
		log.Fatal(err)
	}
	sink, err := cloudwatch.New(cloudwatch.Config{Client: client, Group: "/phoenix/audit", Stream: "mcp-hr"})
	if err != nil {
		log.Fatal(err)
	}
	// Delivers what another process records, until the context ends.
	err = auditlog.Ship(ctx, "/var/lib/phoenix/audit", auditlog.ShipConfig{Sinks: []auditlog.Sink{sink}})
	if err != nil {
		log.Fatal(err)
	}
}
