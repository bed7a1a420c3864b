package sidecar

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"
)

// WriteMetrics writes the Prometheus text format, version 0.0.4.
func (sc *Sidecar) WriteMetrics(w io.Writer) {
	family := func(name, kind, help string) func(labels string, value float64) {
		name = "phoenix_agent_" + name
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		return func(labels string, value float64) {
			if labels != "" {
				labels = "{" + labels + "}"
			}
			fmt.Fprintf(w, "%s%s %s\n", name, labels, strconv.FormatFloat(value, 'g', -1, 64))
		}
	}
	seconds := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return float64(t.UnixMilli()) / 1000
	}
	edges, sides := sc.Edges(), sc.TLS()
	each := func(write func(labels string, value float64), value func(Edge) float64, more string) {
		for _, e := range edges {
			write(fmt.Sprintf("side=%q,at=%q,peer=%q,mode=%q%s", e.Side, e.At, e.Peer, e.Mode, more), value(e))
		}
	}
	write := family("edge_requests_total", "counter", "Requests of an edge, or connections of a tunnel.")
	each(write, func(e Edge) float64 { return float64(e.TLS) }, `,over="tls"`)
	each(write, func(e Edge) float64 { return float64(e.Plain) }, `,over="plain"`)
	write = family("edge_last_plain_timestamp_seconds", "gauge", "When the last plain request of an edge came; 0 if none has since the start.")
	each(write, func(e Edge) float64 { return seconds(e.LastPlain) }, "")

	bySide := func(write func(labels string, value float64), value func(side string) float64) {
		for _, side := range slices.Sorted(maps.Keys(sides)) {
			write(fmt.Sprintf("side=%q", side), value(side))
		}
	}
	bySide(family("tls_handshakes_total", "counter", "Handshakes in which the peer was accepted."), func(s string) float64 { return float64(sides[s].Handshakes) })
	bySide(family("tls_certificate_expires_timestamp_seconds", "gauge", "End of the agent's own certificate."), func(s string) float64 { return seconds(sides[s].Expires) })
	write = family("tls_refused_total", "counter", "Peers that were refused.")
	for _, side := range slices.Sorted(maps.Keys(sides)) {
		refused := sides[side].Refused
		for _, reason := range slices.Sorted(maps.Keys(refused)) {
			write(fmt.Sprintf("side=%q,reason=%q", side, reason), float64(refused[reason]))
		}
	}
	family("tls_old_connections", "gauge", "Open connections on a certificate that has been replaced.")("", float64(sc.Old()))
}
