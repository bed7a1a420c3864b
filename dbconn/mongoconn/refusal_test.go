package mongoconn

import (
	"errors"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"
)

// When a login fails, the driver clears the pool, tells those who wait in it that
// it was cleared, and only then closes the connection. So a waiter can be back
// before the connection's event, and in one case before the pool's.
//
// It looks inside, because nothing outside can put the driver's goroutines in
// this order.
func TestRefusalOfAWaiter(t *testing.T) {
	login := driver.Error{Code: codeAuthenticationFailed, Name: "AuthenticationFailed", Message: "Authentication failed."}
	pool := fmt.Errorf("connection pool for mongodb:27017 was cleared because another operation failed with: auth error: %s", login.Message)
	paused := fmt.Errorf("connection pool for mongodb:27017 was cleared because another operation failed with: auth error: %s", login.Error())
	down := errors.New("connection pool for mongodb:27017 was cleared because another operation failed with: EOF")

	for name, c := range map[string]struct {
		seen    *event.PoolEvent
		err     error
		refused bool
	}{
		"the pool was cleared":             {&event.PoolEvent{Type: event.ConnectionPoolCleared, Error: login}, pool, true},
		"the connection was closed":        {&event.PoolEvent{Type: event.ConnectionClosed, Error: login}, pool, true},
		"ahead of every event":             {nil, paused, true},
		"cleared for another reason":       {&event.PoolEvent{Type: event.ConnectionPoolCleared, Error: errors.New("EOF")}, down, false},
		"an error of the operation itself": {&event.PoolEvent{Type: event.ConnectionPoolCleared, Error: login}, errors.New("EOF"), false},
	} {
		g := &generation{}
		if c.seen != nil {
			g.onPoolEvent(c.seen)
		}
		if err := g.refusal(c.err); credentialsRefused(err) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
