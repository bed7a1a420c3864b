package bench_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"time"
)

// roundTrips boots over a wire that is longer by a known latency. What a boot
// then takes longer, in units of that latency, is the number of its sequential
// round trips: for requests, ours and the floor's, and for opening the
// connection (TCP and TLS), which is measured alone.
func (bn *bench) roundTrips(ctx context.Context) (ours, byHand, opening float64, err error) {
	const latency, times = 40 * time.Millisecond, 11
	near := bn.dial
	defer func() { bn.dial = near }()
	far := func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialFar(ctx, near, network, addr, latency)
	}
	measure := func(boot func(context.Context) (time.Duration, error)) float64 {
		var took [2][]time.Duration
		for range times {
			for i, dial := range []dialer{near, far} {
				if err != nil {
					return 0
				}
				var d time.Duration
				bn.dial = dial
				d, err = boot(ctx)
				took[i] = append(took[i], d)
			}
		}
		return float64(median(took[1])-median(took[0])) / float64(latency)
	}
	opening = measure(bn.handshake)
	ours, byHand = measure(bn.ours)-opening, measure(bn.byHand)-opening
	return ours, byHand, opening, err
}

// handshake opens a connection and closes it.
func (bn *bench) handshake(ctx context.Context) (time.Duration, error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bn.CACertPEM())
	u, err := url.Parse(bn.Addr())
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	raw, err := bn.dial(ctx, "tcp", u.Host)
	if err != nil {
		return 0, err
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: u.Hostname(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	defer conn.Close()
	err = conn.HandshakeContext(ctx)
	return time.Since(begin), err
}

// dialFar dials a server as if it were far away: latency there and back.
func dialFar(ctx context.Context, dial dialer, network, addr string, latency time.Duration) (net.Conn, error) {
	time.Sleep(latency) // TCP's own handshake
	server, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	client, wire := net.Pipe()
	go carry(server, wire, latency/2)
	go carry(wire, server, latency/2)
	return client, nil
}

// carry copies from one end to the other, each byte that much later, until one
// of them is closed; then it closes both.
func carry(to, from net.Conn, later time.Duration) {
	type chunk struct {
		data []byte
		due  time.Time
	}
	queue := make(chan chunk, 64)
	go func() {
		defer close(queue)
		for {
			data := make([]byte, 16<<10)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			queue <- chunk{data[:n], time.Now().Add(later)}
		}
	}()
	for c := range queue {
		time.Sleep(time.Until(c.due))
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range queue { // until the reader has seen that
	}
}
