package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/secrets"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestParseRef(t *testing.T) {
	for text, want := range map[string]secrets.Ref{
		"tamshai/mcp-hr#password":     {Mount: "tamshai", Path: "mcp-hr", Field: "password"},
		"tamshai/a/b/c#d.e":           {Mount: "tamshai", Path: "a/b/c", Field: "d.e"},
		"team/kv//app#password":       {Mount: "team/kv", Path: "app", Field: "password"},
		"team/kv//deep/app#pass-word": {Mount: "team/kv", Path: "deep/app", Field: "pass-word"},
	} {
		got, err := secrets.ParseRef(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v (%s), %v", text, got, got, err)
		}
	}
	for _, text := range []string{
		"", "#", "a", "a/b", "a#b", "/b#c", "a/#c", "a/b#", "a/b#c#d", "a/b#c d", "a/../b#c", "a/./b#c", "../a/b#c", "a//#c", "//a#b", "a/b/#c", "a/b//c//d#e",
		"a/b?x=y#c", "a/*#c", "a/+/b#c", "a/%2e%2e/b#c", "a/b\n#c", "a/b\x00#c", "a b/c#d", `a\b/c#d`, "a/b#\x7f",
	} {
		if ref, err := secrets.ParseRef(text); err == nil {
			t.Errorf("%q is accepted as %+v", text, ref)
		} else if text != "" && !strings.Contains(err.Error(), "mount/path#field") {
			t.Errorf("%q: the error does not say how to write it: %v", text, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{"tamshai/mcp-hr#password", "team/kv//app#x", "a/../b#c", "a//#b", "a/b#c#d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := secrets.ParseRef(text)
		if err != nil {
			return
		}
		again, err := secrets.ParseRef(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q gives %+v, which gives %+v, %v", text, ref, again, err)
		}
		full := ref.Mount + "/data/" + ref.Path
		joined, err := url.JoinPath("http://vault/v1", full)
		if err != nil || joined != "http://vault/v1/"+(&url.URL{Path: full}).EscapedPath() {
			t.Fatalf("%q leaves its mount: %q", text, joined)
		}
	})
}

func TestStoreNamesEverythingThatIsMissing(t *testing.T) {
	from := newSource()
	from.put("kv/app", map[string]string{"here": "x"})
	from.putValues("kv/odd", map[string]secrets.Value{"object": {Kind: secrets.Composite}, "null": {}})
	from.putValues("kv/deleted", nil)
	_, err := secrets.NewStore(t.Context(), from, secrets.Config{
		Secrets: []string{"kv/app#here", "kv/app#gone", "kv/none#x", "kv/odd#object", "kv/odd#null", "kv/deleted#x"}})
	want := []string{
		"secrets: kv/app#gone: the secret has no such field",
		"secrets: kv/deleted: the newest version of the secret is deleted",
		"secrets: kv/none: there is no such secret",
		"secrets: kv/odd#null: the field has another type: it is null, not a string, number or boolean",
		"secrets: kv/odd#object: the field has another type: it is an array or object, not a string, number or boolean",
	}
	if err == nil {
		t.Fatal("started without its secrets")
	}
	got := strings.Split(err.Error(), "\n")
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, class := range []error{secrets.ErrNoField, secrets.ErrNotFound, secrets.ErrDeleted, secrets.ErrType} {
		if !errors.Is(err, class) {
			t.Errorf("the error is not %q", class)
		}
	}
	if _, err := secrets.NewStore(t.Context(), from, secrets.Config{Secrets: []string{"kv/app", "../x#y"}}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("both malformed references should be named: %v", err)
	}
}

func TestUndeclared(t *testing.T) {
	from := newSource()
	from.put("kv/app", map[string]string{"a": "1", "b": "2"})
	s := newStore(t, from, secrets.Config{Secrets: []string{"kv/app#b", "kv/app#a", "kv/app#a"}, Poll: -1})
	if reads, _ := from.counts(); reads != 1 {
		t.Errorf("%d reads of one secret", reads)
	}
	_, err := s.Secret("kv/app#c")
	var undeclared *secrets.UndeclaredError
	if !errors.As(err, &undeclared) || err.Error() != "secrets: kv/app#c is not declared; declared are kv/app#a, kv/app#b" {
		t.Errorf("error: %v", err)
	}
	if _, err := s.Watch("kv/app#c"); !errors.As(err, &undeclared) {
		t.Errorf("error: %v", err)
	}
}

func TestBinding(t *testing.T) {
	from := newSource()
	from.putValues("kv/app", map[string]secrets.Value{
		"text": {Kind: secrets.Text, Secret: secrets.NewString("text")}, "port": {Kind: secrets.Number, Secret: secrets.NewString("5432")}, "on": {Kind: secrets.Bool, Secret: secrets.NewString("true")},
		"ratio": {Kind: secrets.Number, Secret: secrets.NewString("0.5")}, "wait": {Kind: secrets.Text, Secret: secrets.NewString("1m30s")},
		"url": {Kind: secrets.Text, Secret: secrets.NewString("https://example.com/x")}, "ip": {Kind: secrets.Text, Secret: secrets.NewString("10.0.0.1")},
	})
	var got struct {
		Text   string         `secret:"kv/app#text"`
		Bytes  []byte         `secret:"kv/app#text"`
		Live   secrets.Secret `secret:"kv/app#port"`
		Nested struct {
			Port uint16        `secret:"kv/app#port"`
			On   bool          `secret:"kv/app#on"`
			Wait time.Duration `secret:"kv/app#wait"`
		}
		Ratio  float32        `secret:"kv/app#ratio"`
		URL    *url.URL       `secret:"kv/app#url"`
		IP     netip.Addr     `secret:"kv/app#ip"`
		None   int            `secret:"kv/app#none,optional"`
		Absent secrets.Secret `secret:"kv/absent#none,optional"`
		Plain  string
	}
	got.Plain = "as it was"
	newStore(t, from, secrets.Config{Into: &got, Poll: -1})
	if got.Text != "text" || string(got.Bytes) != "text" || got.Live.Reveal() != "5432" || got.Nested.Port != 5432 || !got.Nested.On ||
		got.Nested.Wait != 90*time.Second || got.Ratio != 0.5 || got.URL.Host != "example.com" || got.IP.String() != "10.0.0.1" || got.None != 0 ||
		!got.Absent.IsZero() || got.Plain != "as it was" {
		t.Errorf("bound %+v", got)
	}

	wrong := map[string]any{
		"a number": &struct {
			X int `secret:"kv/app#text"`
		}{},
		"a bool": &struct {
			X bool `secret:"kv/app#text"`
		}{},
		"a duration": &struct {
			X time.Duration `secret:"kv/app#text"`
		}{},
		"too small": &struct {
			X int8 `secret:"kv/app#port"`
		}{},
		"an address": &struct {
			X netip.Addr `secret:"kv/app#text"`
		}{},
	}
	for name, into := range wrong {
		_, err := secrets.NewStore(t.Context(), from, secrets.Config{Into: into})
		if !errors.Is(err, secrets.ErrType) || strings.Contains(err.Error(), `"text"`) || strings.Contains(err.Error(), "5432") {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := map[string]any{
		"no pointer": struct{}{},
		"no struct":  new(int),
		"nil":        (*struct{})(nil),
		"unexported": &struct {
			x string `secret:"kv/app#text"`
		}{},
		"unknown option": &struct {
			X string `secret:"kv/app#text,maybe"`
		}{},
		"unfillable": &struct {
			X chan int `secret:"kv/app#text"`
		}{},
		"malformed": &struct {
			X string `secret:"kv/app"`
		}{},
		"below a pointer": &struct {
			X *struct {
				Y string `secret:"kv/app#text"`
			}
		}{},
	}
	for name, into := range bad {
		if err := (secrets.Config{Into: into}).Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newSource()
		from.put("kv/app", map[string]string{"a": "1", "b": "1"})
		from.put("kv/other", map[string]string{"c": "1"})
		s := newStore(t, from, secrets.Config{Secrets: []string{"kv/app#a", "kv/app#b", "kv/other#c"}})
		a, _ := s.Secret("kv/app#a")
		w, err := s.Watch("kv/app#a")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		reads, looks := from.counts()
		// Two secrets; a look at each every 22.5 to 37.5 seconds.
		if reads != 2 || looks < 2*96 || looks > 2*160 {
			t.Errorf("%d reads and %d looks in an hour", reads, looks)
		}
		from.put("kv/app", map[string]string{"a": "2", "b": "1"})
		begin := time.Now()
		changes, err := w.Next(t.Context())
		if diff := cmp.Diff([]secrets.Change{{Ref: "kv/app#a", Version: 2}}, changes); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if took := time.Since(begin); took > 38*time.Second {
			t.Errorf("seen after %v", took)
		}
		if a.Reveal() != "2" || a.Version() != 2 {
			t.Errorf("the handle shows version %d", a.Version())
		}
		// Changes that nobody asked for become one; others' are not told.
		for i := range 5 {
			from.put("kv/app", map[string]string{"a": fmt.Sprint(i + 3), "b": "2"})
			time.Sleep(time.Minute)
		}
		changes, err = w.Next(t.Context())
		if diff := cmp.Diff([]secrets.Change{{Ref: "kv/app#a", Version: 7}}, changes); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a change of nothing: %v", err)
		}
		w.Close()
		if _, err := w.Next(t.Context()); !errors.Is(err, secrets.ErrClosed) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestPollingWithoutMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newSource()
		from.noMetadata = true
		from.put("kv/app", map[string]string{"a": "1"})
		s := newStore(t, from, secrets.Config{Secrets: []string{"kv/app#a"}})
		a, _ := s.Secret("kv/app#a")
		from.put("kv/app", map[string]string{"a": "2"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if a.Reveal() != "2" {
			t.Error("the data was not looked at")
		}
	})
}

func TestUnfitVersionsAreNotPublished(t *testing.T) {
	from := newSource()
	from.put("kv/app", map[string]string{"port": "1", "name": "a"})
	var cfg struct {
		Port int            `secret:"kv/app#port"`
		Name secrets.Secret `secret:"kv/app#name"`
	}
	s := newStore(t, from, secrets.Config{Into: &cfg, Poll: -1})
	for _, unfit := range []map[string]string{{"name": "b"}, {"port": "many", "name": "c"}} {
		from.put("kv/app", unfit)
		for range 2 {
			if err := s.Refresh(t.Context()); err == nil {
				t.Errorf("%v was published", unfit)
			}
		}
		if cfg.Name.Reveal() != "a" {
			t.Error("a field of an unfit version is published")
		}
	}
	if reads, _ := from.counts(); reads != 3 {
		t.Errorf("%d reads: an unfit version is read once", reads)
	}
	if _, err := s.Checked(); err == nil {
		t.Error("Checked does not tell")
	}
	from.fail(errors.New("Vault is away"))
	if err := s.Refresh(t.Context()); err == nil {
		t.Error("an error of the source is hidden")
	}
	from.fail(nil)
	from.put("kv/app", map[string]string{"port": "2", "name": "d"})
	if err := s.Refresh(t.Context()); err != nil || cfg.Name.Reveal() != "d" {
		t.Errorf("not recovered: %v", err)
	}
	if _, err := s.Checked(); err != nil {
		t.Errorf("still: %v", err)
	}
}

// Without secrets nothing grows old.
func TestCheckedWithoutSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, newSource(), secrets.Config{})
		time.Sleep(time.Hour)
		if at, err := s.Checked(); err != nil || time.Since(at) != 0 {
			t.Errorf("checked %v ago, %v", time.Since(at), err)
		}
	})
}

func TestSourceCanBeReplaced(t *testing.T) {
	first, second := newSource(), newSource()
	first.put("kv/app", map[string]string{"a": "1"})
	second.put("kv/app", map[string]string{"a": "1"})
	second.put("kv/app", map[string]string{"a": "2"})
	s := newStore(t, first, secrets.Config{Secrets: []string{"kv/app#a"}, Poll: -1})
	a, _ := s.Secret("kv/app#a")
	s.SetSource(second)
	if err := s.Refresh(t.Context()); err != nil || a.Reveal() != "2" {
		t.Errorf("%v, version %d", err, a.Version())
	}
}

// Whatever versions come and however requests fail: all fields of a secret are
// of one version, that version is the newest fit one that could be read, and
// the last change is never lost on a watcher.
func TestStoreFollowsItsSource(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from := newSource()
		from.put("kv/app", map[string]string{"a": "1", "b": "1"})
		s, err := secrets.NewStore(t.Context(), from, secrets.Config{Secrets: []string{"kv/app#a", "kv/app#b"}, Poll: -1})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		a, _ := s.Secret("kv/app#a")
		b, _ := s.Secret("kv/app#b")
		w, err := s.Watch()
		if err != nil {
			rt.Fatal(err)
		}
		newest, seen, version := "1", "1", 1
		rt.Repeat(map[string]func(*rapid.T){
			"a new version": func(*rapid.T) {
				version++
				newest = fmt.Sprint(version)
				from.put("kv/app", map[string]string{"a": newest, "b": newest})
			},
			"an unfit version": func(*rapid.T) {
				version++
				from.put("kv/app", map[string]string{"a": "unfit"})
				newest = "unfit"
			},
			"a look": func(*rapid.T) {
				if err := s.Refresh(t.Context()); err == nil && newest == "unfit" {
					rt.Fatal("an unfit version passed")
				}
				if newest != "unfit" {
					seen = newest
				}
			},
			"a look in vain": func(*rapid.T) {
				from.fail(errors.New("away"))
				defer from.fail(nil)
				if err := s.Refresh(t.Context()); err == nil {
					rt.Fatal("no error")
				}
			},
			"": func(rt *rapid.T) {
				if a.Reveal() != b.Reveal() || a.Reveal() != seen {
					rt.Fatalf("a is %s, b is %s, want %s", a.Reveal(), b.Reveal(), seen)
				}
			},
		})
		if seen != "1" {
			changes, err := w.Next(t.Context())
			if err != nil || len(changes) != 2 || fmt.Sprint(changes[0].Version) != seen {
				rt.Fatalf("the watcher was told %v, %v; the newest is %s", changes, err, seen)
			}
		}
	})
}

func TestCloseEndsWatchersAndKeepsValues(t *testing.T) {
	from := newSource()
	from.put("kv/app", map[string]string{"a": "1"})
	s := newStore(t, from, secrets.Config{Secrets: []string{"kv/app#a"}})
	a, _ := s.Secret("kv/app#a")
	w, err := s.Watch()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := w.Next(context.Background()); !errors.Is(err, secrets.ErrClosed) {
			t.Errorf("error: %v", err)
		}
	})
	s.Close()
	s.Close()
	wg.Wait()
	w.Close()
	if a.Reveal() != "1" {
		t.Error("the value is gone")
	}
}
