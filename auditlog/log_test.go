package auditlog_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/tamshai/phoenix/auditlog"
)

func event(action string) auditlog.Event {
	return auditlog.Event{Category: auditlog.DataAccess, Action: action, Outcome: auditlog.Success}
}

func openT(t testing.TB, dir string, cfg auditlog.Config) *auditlog.Log {
	t.Helper()
	l, err := auditlog.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(t.Context()) })
	return l
}

// actions are those of the events in dir, in order.
func actions(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	for entry, err := range auditlog.Read(os.DirFS(dir), func(text string) { t.Errorf("damage: %s", text) }) {
		if err != nil {
			t.Fatal(err)
		}
		if entry.Kind == auditlog.KindEvent {
			e, err := entry.Event()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e.Action)
		}
	}
	return out
}

func TestWhatIsAppendedIsThereAfterwards(t *testing.T) {
	dir := t.TempDir()
	n := 0
	for range 3 {
		l := openT(t, dir, auditlog.Config{Service: "mcp-hr", SegmentSize: 64 << 10})
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				if err := l.Append(t.Context(), event(fmt.Sprint("a", i))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		n += 200
		if got := len(actions(t, dir)); got != n {
			t.Errorf("while it is open: %d events, want %d", got, n)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(actions(t, dir)); got != n {
			t.Errorf("%d events, want %d", got, n)
		}
	}
}
