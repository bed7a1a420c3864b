package webhook_test

import (
	"context"
	"log"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/webhook"
)

func ExampleBetterStack() {
	sink, err := webhook.BetterStack("s123.eu-nbg-2.betterstackdata.com", webhook.Config{
		Token: webhook.TokenFile("/run/secrets/betterstack"),
	})
	if err != nil {
		log.Fatal(err)
	}
	// Delivers what another process records, until the context ends.
	err = auditlog.Ship(context.Background(), "/var/lib/phoenix/audit", auditlog.ShipConfig{Sinks: []auditlog.Sink{sink}})
	if err != nil {
		log.Fatal(err)
	}
}
