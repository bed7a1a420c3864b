package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/audithttp"
	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/secrets"
)

// Audit is a log of the agent's own, instead of a line in its messages for each
// event. "phoenix audit ship" delivers it: the agent links no sink.
type Audit struct {
	Dir    string // where it is kept; "" means that there is none
	Signer string // the key in Vault that signs it: "transit/sign/mcp-hr"; "" means that nobody does
	// Listen is where the program's own events are taken, as "phoenix audit
	// serve" does: "unix:/run/phoenix/audit.sock", or on loopback. "" means
	// nowhere. On the socket the program is known by its user, on loopback by
	// Token.
	Listen string
	Token  string // a reference: "tamshai/mcp-hr#audit_token"
}

func (a *Audit) check(once bool) error {
	switch {
	case a.Dir == "" && (a.Signer != "" || a.Listen != "" || a.Token != ""):
		return usage("the audit log has no folder: name one with -audit")
	case a.Listen == "" && a.Token != "":
		return usage("audit: token is for nothing without listen")
	case a.Listen == "":
		return nil
	case once:
		return usage("-once writes files and ends; it takes no events")
	}
	if err := sidecar.Local(a.Listen, "others could record in the program's name"); err != nil {
		return usage("audit: listen %w", err)
	}
	if !strings.HasPrefix(a.Listen, "unix:") && a.Token == "" {
		return usage("audit: whoever is on this host can come to %s; name a token, or a socket like unix:/run/phoenix/audit.sock", a.Listen)
	}
	if a.Token != "" {
		if _, err := secrets.ParseRef(a.Token); err != nil {
			return usage("audit: token: %w", err)
		}
	}
	return nil
}

// openAudit opens the log, if there is to be one, and makes it the boot's.
func (c *Config) openAudit() (*auditlog.Log, error) {
	if c.Audit.Dir == "" {
		return nil, nil
	}
	log, err := auditlog.Open(c.Audit.Dir, auditlog.Config{Service: c.Boot.Service, Environment: c.Boot.Environment, Logger: c.Logger})
	if err != nil {
		return nil, fmt.Errorf("the audit log cannot be opened: %w", err)
	}
	c.Boot.Audit, c.Boot.Signer = log, c.Audit.Signer
	return log, nil
}

// closeAudit closes what openAudit has opened.
func (c *Config) closeAudit(log *auditlog.Log) {
	if log == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := log.Close(ctx); err != nil {
		c.Logger.Warn("the audit log is not closed cleanly", "error", err)
	}
}

// startAudit has the log signed, and takes the program's events, until the
// function that it returns is called.
func startAudit(cfg *Config, log *auditlog.Log, session *bootstrap.Session) (stop func(), err error) {
	stop = func() {}
	if cfg.Audit.Signer != "" {
		if err := log.Attach(session.Signer()); err != nil {
			return stop, fmt.Errorf("the audit log cannot be signed: %w", err)
		}
	}
	if cfg.Audit.Listen == "" {
		return stop, nil
	}
	client := audithttp.Client{Service: cfg.Boot.Service, Environment: cfg.Boot.Environment}
	if strings.HasPrefix(cfg.Audit.Listen, "unix:") {
		client.UIDs = []uint32{uint32(os.Getuid())}
	}
	if cfg.Audit.Token != "" {
		if client.Token, err = session.Secret(cfg.Audit.Token); err != nil {
			return stop, err
		}
	}
	srv, err := audithttp.IngestServer(audithttp.IngestConfig{Log: log, Clients: []audithttp.Client{client}, Logger: cfg.Logger})
	if err != nil {
		return stop, fmt.Errorf("the program's events cannot be taken: %w", err)
	}
	l, err := sidecar.Listen(context.Background(), cfg.Audit.Listen)
	if err != nil {
		return stop, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			cfg.Logger.Error("the program's events are not taken any more", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
		<-done
	}, nil
}
