package secrets_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

func ExampleSecret() {
	s := secrets.NewString("correct horse")
	fmt.Printf("%v %+v %q\n", s, struct{ Key secrets.Secret }{s}, s)
	fmt.Println(s.Reveal())
	// Output:
	// [redacted] {Key:[redacted]} [redacted]
	// correct horse
}

func ExampleNewStore() {
	from := newSource() // bootstrap gives one that reads Vault
	from.put("tamshai/mcp-hr", map[string]string{"password": "correct horse", "timeout": "30s"})
	var cfg struct {
		Password secrets.Secret `secret:"tamshai/mcp-hr#password"`
		Timeout  time.Duration  `secret:"tamshai/mcp-hr#timeout"`
	}
	store, err := secrets.NewStore(context.Background(), from, secrets.Config{Into: &cfg})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	fmt.Println(cfg.Password, cfg.Timeout)

	_, err = store.Secret("tamshai/mcp-hr#api_key")
	fmt.Println(err)
	// Output:
	// [redacted] 30s
	// secrets: tamshai/mcp-hr#api_key is not declared; declared are tamshai/mcp-hr#password, tamshai/mcp-hr#timeout
}

func ExampleStore_Watch() {
	ctx := context.Background()
	from := newSource()
	from.put("tamshai/mcp-hr", map[string]string{"password": "correct horse"})
	store, err := secrets.NewStore(ctx, from, secrets.Config{Secrets: []string{"tamshai/mcp-hr#password"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	w, err := store.Watch("tamshai/mcp-hr#password")
	if err != nil {
		fmt.Println(err)
		return
	}
	from.put("tamshai/mcp-hr", map[string]string{"password": "battery staple"})
	_ = store.Refresh(ctx) // a store does it every half minute by itself
	changes, err := w.Next(ctx)
	fmt.Println(changes, err)
	// Output:
	// [{tamshai/mcp-hr#password 2}] <nil>
}

func ExampleDerive() {
	key := secrets.NewString("correct horse")
	client, err := secrets.Derive(key, func(value []byte) (string, error) {
		return fmt.Sprintf("a client with a key of %d bytes", len(value)), nil
	}, func(client string) { fmt.Println("closed:", client) })
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = client.Use(func(c string) error {
		fmt.Println("used:", c)
		return nil
	})
	client.Close()
	// Output:
	// used: a client with a key of 13 bytes
	// closed: a client with a key of 13 bytes
}

func ExampleScrubber() {
	var known secrets.Scrubber
	known.Add(secrets.NewString("correct horse"))
	fmt.Println(known.Scrub(`the server said: {"password":"correct horse"}`))
	// Output:
	// the server said: {"password":"[redacted]"}
}
