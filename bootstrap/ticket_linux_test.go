package bootstrap_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tamshai/phoenix/bootstrap"
)

// /dev/shm is a tmpfs on every Linux: a ticket may lie in a folder there, but
// not where everybody writes.
func TestTicketOnATmpfs(t *testing.T) {
	v := onReal(t)
	folder, err := os.MkdirTemp("/dev/shm", "phoenix-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	cfg := v.withTicket()
	cfg.TicketFile, cfg.AllowTicketOnDisk = filepath.Join(folder, "ticket"), false
	v.leave(cfg)
	s := v.startOnly(cfg)
	if !s.Boot().Ticket {
		t.Error("the ticket was not used")
	}
	v.endWithoutTicket(s)
	cfg.TicketFile = "/dev/shm/ticket"
	v.fails(cfg, bootstrap.ErrConfig, "others may write")
}
