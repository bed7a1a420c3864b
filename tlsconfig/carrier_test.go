package tlsconfig_test

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/testpki"
	"github.com/tamshai/phoenix/tlsconfig"
)

// A carrier sends everything over one connection, which it makes when the last
// one is not good any more.
type carrier struct {
	*http.Transport
	judge  func(net.Conn) error
	conn   net.Conn
	judged []error
}

func (c *carrier) Judges(*http.Request) bool { return true }

func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.conn != nil {
		err := c.judge(c.conn)
		c.judged = append(c.judged, err)
		if err != nil {
			c.conn = nil
		}
	}
	if c.conn == nil {
		var err error
		if c.conn, err = c.DialTLSContext(req.Context(), "tcp", req.URL.Host); err != nil {
			return nil, err
		}
	}
	if err := req.Write(c.conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c.conn), req)
}

// Whoever sends the requests of a transport in its place is told what to think of
// a server before each of them, and a connection that is not good is closed.
func TestCarrier(t *testing.T) {
	ca := testpki.NewCA("ours")
	url, _ := serve(t, tlsconfig.Config{DrainTimeout: time.Hour}, tlsconfig.Static(material(t, ca.Issue(serverSpec), ca)), tlsconfig.AllowTrusted(), nil)
	var refuse atomic.Bool
	allow := func(*tlsconfig.PeerIdentity) error {
		if refuse.Load() {
			return errors.New("not any more")
		}
		return nil
	}
	var all []*carrier
	identity := live(material(t, ca.Issue(clientSpec), ca))
	base := &http.Transport{Protocols: new(http.Protocols)}
	base.Protocols.SetHTTP1(true)
	via := tlsconfig.Config{DrainTimeout: time.Hour, Carrier: func(base *http.Transport, judge func(net.Conn) error) tlsconfig.Carrier {
		all = append(all, &carrier{Transport: base, judge: judge})
		return all[len(all)-1]
	}}.NewTransport(base, identity, "mcp-hr", allow)
	defer via.Close()
	for range 2 {
		if code, _, err := get(via, url); err != nil || code != 200 {
			t.Fatal(code, err)
		}
	}
	if len(all) != 1 || len(all[0].judged) != 1 || all[0].judged[0] != nil {
		t.Errorf("%d carriers, and the judgement was %v", len(all), all[0].judged)
	}
	old := all[0].conn
	refuse.Store(true)
	var refused *tlsconfig.RefusedError
	if _, _, err := get(via, url); !errors.As(err, &refused) {
		t.Errorf("a server that is refused: %v", err)
	}
	if !errors.As(all[0].judged[1], &refused) {
		t.Errorf("the judgement was %v", all[0].judged)
	}
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("its connection: %v", err)
	}
	refuse.Store(false)
	if err := all[0].judge(old); err == nil {
		t.Error("a closed connection is good")
	}
	if err := all[0].judge(new(net.TCPConn)); err == nil {
		t.Error("a connection of somebody else is good")
	}
	identity.Publish(material(t, ca.Issue(clientSpec), ca))
	if _, _, err := get(via, url); err != nil || len(all) != 2 {
		t.Errorf("after a rotation: %v, %d carriers", err, len(all))
	}
}
