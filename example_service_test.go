package phoenix_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/secrets"
)

func run(ctx context.Context, addr string) error {
	var cfg struct {
		ClaudeKey secrets.Secret `secret:"tamshai/mcp-gateway#claude_api_key"`
	}
	s, err := bootstrap.Start(ctx, bootstrap.Config{Service: "mcp-gateway", Into: &cfg})
	if err != nil {
		return err // says what happened and what to do
	}
	defer s.Close(ctx) // revokes the token
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", s.ServeReady)
	mux.HandleFunc("POST /ask", func(w http.ResponseWriter, r *http.Request) {
		ask(w, r, cfg.ClaudeKey.Reveal()) // the newest version, on each request
	})
	srv, drained := &http.Server{Addr: addr, Handler: mux}, make(chan error, 1)
	go func() { <-ctx.Done(); drained <- srv.Shutdown(context.WithoutCancel(ctx)) }()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

// ask stands for what the service does with its key.
func ask(w http.ResponseWriter, _ *http.Request, apiKey string) {
	fmt.Fprintf(w, "a key of %d bytes\n", len(apiKey))
}

// A whole service: it boots from the SecretID that was issued for it, answers
// while its session is good, uses its key on each request, and gives its token
// back at SIGTERM. VAULT_ADDR, VAULT_CACERT, VAULT_ROLE_ID and
// VAULT_SECRET_ID_FILE say the rest.
func Example_service() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, ":3100"); err != nil {
		log.Fatal(err)
	}
}
