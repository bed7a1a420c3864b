package audithttp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/secrets"
)

const minToken = 16

type peerKey struct{}

// withPeer notes who is at the other end of a unix socket.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if unix, ok := conn.(*net.UnixConn); ok {
		if uid, err := peerUID(unix); err == nil {
			return context.WithValue(ctx, peerKey{}, uid)
		}
	}
	return ctx
}

// authenticate returns the client that a request is from, or why there is none.
func (s *ingest) authenticate(r *http.Request) (*Client, string) {
	if token := tokenOf(r); token != "" {
		given := secrets.NewString(token)
		defer given.Wipe()
		var found *Client
		for i := range s.Clients { // all, so that time tells nothing
			if c := &s.Clients[i]; !c.Token.IsZero() && c.Token.Equal(given) {
				found = c
			}
		}
		if found == nil {
			return nil, "the token is nobody's"
		}
		return found, ""
	}
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	if !ok {
		return nil, "there is no token"
	}
	for i := range s.Clients {
		if slices.Contains(s.Clients[i].UIDs, uid) {
			return &s.Clients[i], ""
		}
	}
	return nil, "user " + strconv.FormatUint(uint64(uid), 10) + " is no client"
}

func tokenOf(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	_, password, _ := r.BasicAuth()
	return cmp.Or(password, r.PathValue("token"))
}

// refusals keeps whoever knocks from filling the log: the first is recorded at
// once, those that follow within ten seconds are counted.
type refusals struct {
	mu    sync.Mutex
	since time.Time
	count int
}

func (s *ingest) refuse(r *http.Request, why string) {
	now := s.Now()
	s.refused.mu.Lock()
	s.refused.count++
	count := s.refused.count
	if !s.refused.since.IsZero() && now.Sub(s.refused.since) < 10*time.Second {
		s.refused.mu.Unlock()
		return
	}
	s.refused.since, s.refused.count = now, 0
	s.refused.mu.Unlock()
	client, _ := clientOf(r, nil)
	err := s.Log.Append(context.WithoutCancel(r.Context()), auditlog.Event{
		Time: now, Severity: auditlog.Warning, Category: auditlog.Authentication, Action: "ingest.refused", Outcome: auditlog.Blocked,
		Actor: auditlog.Actor{Client: client}, Attributes: map[string]string{"reason": why, "count": strconv.Itoa(count)},
	})
	if err != nil {
		s.Logger.Error("a refused request is not recorded", "error", err)
	}
}

// rejection is the event about data that are no event.
func rejection(client *Client, one rejected, total int) auditlog.Event {
	sum := sha256.Sum256(one.data)
	return auditlog.Event{
		Service: client.Service, Environment: client.Environment, Severity: auditlog.Warning, Category: auditlog.System, Action: "ingest.rejected",
		Outcome: auditlog.Failure, Attributes: map[string]string{
			"reason": one.Error, "index": strconv.Itoa(one.Index), "rejected": strconv.Itoa(total),
			"bytes": strconv.Itoa(len(one.data)), "sha256": hex.EncodeToString(sum[:]),
		},
	}
}
