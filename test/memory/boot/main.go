// Boot is a service that boots a session and then waits: for the test that
// reads its memory. Its arguments are the names of its secrets; everything else
// is in the environment, and the SecretID in a file.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/secmem"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if os.Getenv("MEMORY_READABLE") == "" {
		if err := secmem.Harden(); err != nil {
			return err
		}
	}
	s, err := bootstrap.Start(ctx, bootstrap.Config{
		Service: "memory", Secrets: os.Args[1:], RequireProof: true,
		Poll: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer s.Close(ctx) //nolint:errcheck // the test looks at memory alone
	fmt.Println(s.Boot().Took)
	_, err = io.Copy(io.Discard, os.Stdin) // until the test closes it
	return err
}
