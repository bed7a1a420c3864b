package leak_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tamshai/phoenix/internal/leak"
)

type failed struct{ text string }

func (*failed) Helper()             {}
func (f *failed) Error(args ...any) { f.text = args[0].(error).Error() }

// A goroutine that ends later than goleak waits is none that leaks.
func TestNone(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); <-end }()
	if err := goleak.Find(ignore); err == nil {
		t.Fatal("goleak finds nothing")
	}
	go func() {
		_ = goleak.Find(ignore) // for as long as it waits
		close(end)
	}()
	var f failed
	leak.None(&f, ignore)
	if f.text != "" {
		t.Error(f.text)
	}
	<-ended
}

func TestFind(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	end := make(chan struct{})
	defer close(end)
	go leaks(end)
	if err := leak.FindWithin(0, []goleak.Option{ignore}); err == nil || !strings.Contains(err.Error(), "leak_test.leaks") {
		t.Errorf("%v", err)
	}
}

func leaks(end chan struct{}) { <-end }
