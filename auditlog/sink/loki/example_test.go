package loki_test

import (
	"context"
	"log"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/loki"
)

func ExampleNew() {
	ctx := context.Background()
	sink, err := loki.New(loki.Config{URL: "https://loki.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	// Delivers what another process records, until the context ends.
	err = auditlog.Ship(ctx, "/var/lib/phoenix/audit", auditlog.ShipConfig{Sinks: []auditlog.Sink{sink}})
	if err != nil {
		log.Fatal(err)
	}
}
