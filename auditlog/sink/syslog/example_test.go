package syslog_test

import (
	"context"
	"log"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/syslog"
)

func ExampleNew() {
	sink, err := syslog.New(syslog.Config{Addr: "logs.example.com:6514"})
	if err != nil {
		log.Fatal(err)
	}
	// Delivers what another process records, until the context ends.
	err = auditlog.Ship(context.Background(), "/var/lib/phoenix/audit", auditlog.ShipConfig{Sinks: []auditlog.Sink{sink}})
	if err != nil {
		log.Fatal(err)
	}
}
