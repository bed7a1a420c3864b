package auditlog_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

var kills = flag.Int("kills", 12, "how often TestKill kills the writer; make crash takes 1,000")

// crashChild appends until it is killed, and prints each ID when it is durable.
func crashChild() {
	anchor, err := auditlog.DirAnchor(os.Getenv("PHOENIX_CRASH_ANCHOR"))
	if err != nil {
		panic(err)
	}
	signer, err := auditlog.FileSigner(os.Getenv("PHOENIX_CRASH_KEY"))
	if err != nil {
		panic(err)
	}
	l, err := auditlog.Open(os.Getenv("PHOENIX_CRASH_CHILD"), auditlog.Config{
		SegmentSize: 256 << 10, Anchor: anchor, CheckpointRecords: 100, CheckpointEvery: 5 * time.Millisecond, MaxBytes: 8 << 30,
	})
	if err != nil {
		panic(err)
	}
	if err := l.Attach(signer); err != nil {
		panic(err)
	}
	var out sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := 0; ; i++ {
				r, err := l.Submit(context.Background(), event(fmt.Sprint("kill.", i)))
				if err == nil {
					err = r.Wait(context.Background())
				}
				if err != nil {
					panic(err)
				}
				out.Lock()
				_, _ = os.Stdout.WriteString(r.ID() + "\n")
				out.Unlock()
			}
		})
	}
	all.Wait()
}

// Killed at any moment, the log has every acknowledged event once, goes on,
// and verifies against its anchors.
func TestKill(t *testing.T) {
	dir, anchors := t.TempDir(), t.TempDir()
	keyFile, public := writeKey(t)
	var acknowledged []string
	for i := range *kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "PHOENIX_CRASH_CHILD="+dir, "PHOENIX_CRASH_ANCHOR="+anchors, "PHOENIX_CRASH_KEY="+keyFile)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		n, most := 0, 1+rand.IntN(300)
		for n < most && lines.Scan() {
			acknowledged = append(acknowledged, lines.Text())
			n++
		}
		must(t, cmd.Process.Kill())
		for lines.Scan() { // what it has said before
			if len(lines.Text()) == 36 {
				acknowledged = append(acknowledged, lines.Text())
			}
		}
		_ = cmd.Wait() // killed
		if i%50 == 49 || i == *kills-1 {
			checkKilled(t, dir, anchors, acknowledged, public)
		}
	}
	l := openT(t, dir, auditlog.Config{SegmentSize: 256 << 10, MaxBytes: 8 << 30})
	must(t, l.Append(t.Context(), event("after")))
	must(t, l.Close(t.Context()))
	checkKilled(t, dir, anchors, acknowledged, public)
	t.Logf("%d kills, %d events acknowledged", *kills, len(acknowledged))
}

func checkKilled(t *testing.T, dir, anchors string, acknowledged []string, public []byte) {
	t.Helper()
	there, err := ids(os.DirFS(dir), func(text string) { t.Errorf("damage: %s", text) })
	must(t, err)
	if n := len(there); len(slices.Compact(slices.Clone(there))) != n {
		t.Error("an event is there twice")
	}
	for _, id := range acknowledged {
		if _, found := slices.BinarySearch(there, id); !found {
			t.Fatalf("event %s was acknowledged and is lost", id)
		}
	}
	r := verify(t, dir, anchors, public)
	if err := r.Err(); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(r.Notes, "\n"))
	}
}
