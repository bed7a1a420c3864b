package freeport_test

import (
	"net"
	"testing"

	"github.com/tamshai/phoenix/internal/freeport"
)

func TestAddr(t *testing.T) {
	addr, err := freeport.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil || !tcp.IP.IsLoopback() || tcp.Port < 20000 || tcp.Port >= 32000 {
		t.Errorf("%s: %v", addr, err)
	}
	ln, err := freeport.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if other, err := net.Listen("tcp", ln.Addr().String()); err == nil {
		other.Close()
		t.Error("two listen at one port")
	}
}
