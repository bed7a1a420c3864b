package realvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
)

// Seal seals the server.
func (s *Server) Seal(ctx context.Context) error {
	return s.change(ctx, "seal", func(ctx context.Context) error {
		return s.want(ctx, http.MethodPut, "sys/seal", nil, nil)
	})
}

// Unseal unseals the server and returns when it is active.
func (s *Server) Unseal(ctx context.Context) error {
	return s.change(ctx, "unseal", s.unseal)
}

// Stop ends the process with SIGTERM, and with SIGKILL after ten seconds.
// Restart and Wipe start it again.
func (s *Server) Stop() { s.halt((*process).stop10) }

// Kill ends the process with SIGKILL. Restart and Wipe start it again.
func (s *Server) Kill() { s.halt((*process).kill) }

func (p *process) stop10() { p.stop(stopGrace) }

func (s *Server) halt(end func(*process)) {
	s.op.Lock()
	defer s.op.Unlock()
	s.haltLocked(end)
}

func (s *Server) haltLocked(end func(*process)) {
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc != nil {
		end(proc)
	}
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// Restart stops the process if it runs, and starts it on the same port and
// the same storage. In File mode the server is sealed afterwards. In Dev mode
// it is unsealed and empty, with the root token it had.
func (s *Server) Restart(ctx context.Context) error {
	return s.change(ctx, "restart", func(ctx context.Context) error {
		s.haltLocked((*process).stop10)
		if err := s.rerun(ctx, s.run); err != nil {
			return err
		}
		if s.cfg.Mode == Dev {
			return s.enableAudit(ctx)
		}
		return nil
	})
}

// Wipe kills the process, deletes its storage and its audit log, and starts
// it on the same port as a new server: initialised and unsealed, with a new
// root token and new unseal keys in File mode.
func (s *Server) Wipe(ctx context.Context) error {
	return s.change(ctx, "wipe", func(ctx context.Context) error {
		s.haltLocked((*process).kill)
		if err := errors.Join(os.RemoveAll(s.storage()), os.RemoveAll(s.AuditLog())); err != nil {
			return err
		}
		return s.rerun(ctx, s.boot)
	})
}

// rerun tries again while the port is taken: the address must stay the same.
func (s *Server) rerun(ctx context.Context, run func(context.Context) error) error {
	for {
		err := run(ctx)
		if !errors.Is(err, errAddrInUse) || ctx.Err() != nil {
			return err
		}
	}
}

func (s *Server) change(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("%s Vault at %s: %w", what, s.Addr(), errClosed)
	}
	if err := f(ctx); err != nil {
		return fmt.Errorf("%s Vault at %s: %w", what, s.Addr(), err)
	}
	return nil
}

// Close kills the process and removes its directory. It may be called more
// than once.
func (s *Server) Close() error {
	s.op.Lock()
	defer s.op.Unlock()
	s.haltLocked((*process).kill)
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := os.RemoveAll(s.dir)
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
