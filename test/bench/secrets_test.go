package bench_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/secrets"
)

// What reading a secret costs a service on each request, from a fixed handle
// and from a store's live one.
func BenchmarkSecretReveal(b *testing.B) {
	store, err := secrets.NewStore(b.Context(), fixed{}, secrets.Config{Secrets: []string{"kv/app#password"}, Poll: -1})
	check(b, err)
	b.Cleanup(store.Close)
	live, err := store.Secret("kv/app#password")
	check(b, err)
	for _, s := range []struct {
		name   string
		secret secrets.Secret
	}{{"fixed", secrets.NewString(password)}, {"live", live}} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(s.secret.Reveal()) != len(password) {
					b.Fatal("a wrong value")
				}
			}
		})
	}
}

const password = "0123456789abcdef0123456789abcdef"

// fixed is a source of one secret.
type fixed struct{}

func (fixed) ReadKV(context.Context, string, string) (secrets.Data, error) {
	return secrets.Data{Version: 1, Fields: map[string]secrets.Value{"password": {Kind: secrets.Text, Secret: secrets.NewString(password)}}}, nil
}

func (fixed) KVVersion(context.Context, string, string) (int, error) { return 1, nil }

// What it costs to take 20 known values out of an error's text of 300 bytes:
// when none is in it, as nearly always, and when one is.
func BenchmarkScrub(b *testing.B) {
	var scrubber secrets.Scrubber
	for i := range 20 {
		scrubber.Add(secrets.NewString(fmt.Sprintf("value-%02d-%s", i, password)))
	}
	clean := strings.Repeat("the server said that it could not do it; ", 8)[:300]
	dirty := (clean[:120] + "value-07-" + password + clean)[:300]
	for _, text := range []struct{ name, text string }{{"clean", clean}, {"dirty", dirty}} {
		b.Run(text.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if found := scrubber.Scrub(text.text) != text.text; found != (text.name == "dirty") {
					b.Fatal("found", found)
				}
			}
		})
	}
}
