package bootstrap_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// What holds secrets shows none of them, to any verb, logger or encoder: the
// search at the end of the suite looks through all this too.
func TestNoTypeShowsASecret(t *testing.T) {
	v := onReal(t)
	cfg := v.config(v.wrapped())
	s := v.start(cfg)
	var out strings.Builder
	log := slog.New(slog.NewJSONHandler(&out, nil))
	for _, value := range []any{cfg, &cfg, s, s.Boot(), s.Status(), s.Scrubber(), s.Secrets()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", value)
			fmt.Fprintf(&out, verb+"\n", struct{ Exported any }{value})
		}
		log.Info("x", "value", value)
		data, _ := json.Marshal(value)
		out.Write(data)
	}
	collected.add(out.String())
	for _, value := range []string{cfg.SecretID.Reveal(), "pw-" + v.name, "key-" + v.name} {
		if strings.Contains(out.String(), value) || strings.Contains(out.String(), fmt.Sprintf("%x", value)) {
			t.Errorf("a secret shows (%d bytes)", len(value))
		}
	}
}
