package bootstrap_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Everything that the suite logged, recorded, returned as an error or left in a
// file, Vault's own logs included, and every secret value that it used: searchForSecrets compares them when all
// tests have passed.
var (
	collected collector
	used      collector
)

type collector struct {
	mu    sync.Mutex
	texts []string
}

func (c *collector) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, text)
}

// addFiles adds the names and contents of all files below a path, but for those
// that are as expected.
func (c *collector) addFiles(path string, expected map[string]string) {
	_ = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		if content, ok := expected[name]; !ok || content != string(data) {
			c.add(name + "\n" + string(data))
		}
		return nil
	})
}

// secretValue marks a value that must not be seen anywhere.
func secretValue(value string) string {
	used.add(value)
	return value
}

func searchForSecrets() int {
	if len(used.texts) < 20 || len(collected.texts) < 100 {
		if partialRun() {
			return 0
		}
		fmt.Fprintf(os.Stderr, "the search for leaks has nothing to search: %d values, %d texts\n", len(used.texts), len(collected.texts))
		return 1
	}
	found := leaks(strings.Join(collected.texts, "\n"), used.texts)
	for _, text := range found {
		fmt.Fprintln(os.Stderr, text)
	}
	return min(len(found), 1)
}

// leaks searches a text for values as they are, in base64 and in JSON. There are
// thousands of values and megabytes of text: it passes over it once, with the
// values by how they begin.
func leaks(all string, values []string) (found []string) {
	const head = 6
	type form struct{ what, text string }
	forms, seen := map[[head]byte][]form{}, map[string]bool{}
	for _, value := range values {
		if seen[value] {
			continue
		}
		seen[value] = true
		quoted, _ := json.Marshal(value)
		for what, text := range map[string]string{
			"plain": value, "base64": base64.StdEncoding.EncodeToString([]byte(value)), "JSON": strings.Trim(string(quoted), `"`),
		} {
			if len(text) < head {
				found = append(found, fmt.Sprintf("a value of %d bytes is too short to search for", len(text)))
				continue
			}
			first := [head]byte([]byte(text))
			forms[first] = append(forms[first], form{what, text})
		}
	}
	for i := range len(all) - head + 1 {
		for _, f := range forms[[head]byte([]byte(all[i:i+head]))] {
			if strings.HasPrefix(all[i:], f.text) {
				line, _, _ := strings.Cut(all[strings.LastIndexByte(all[:i], '\n')+1:], "\n")
				found = append(found, fmt.Sprintf("a secret value (%s) leaked into: %s", f.what, line))
			}
		}
	}
	return found
}

// The search finds what it is for.
func TestLeaksAreFound(t *testing.T) {
	const value = "a \"secret\" value"
	quoted, _ := json.Marshal(value)
	for _, text := range []string{value, "x " + value, "one\ntwo " + base64.StdEncoding.EncodeToString([]byte(value)) + "\nthree", string(quoted)} {
		if found := leaks(text, []string{"another value", value, value}); len(found) != 1 {
			t.Errorf("%q: %q", text, found)
		}
	}
	if found := leaks("a \"secret\" valu", []string{value}); found != nil {
		t.Errorf("%q", found)
	}
}

// partialRun reports whether only some tests were asked for.
func partialRun() bool {
	for _, arg := range os.Args {
		if strings.HasPrefix(arg, "-test.run") || strings.HasPrefix(arg, "-test.list") || strings.HasPrefix(arg, "-test.fuzz=") || strings.HasPrefix(arg, "-test.bench=") {
			return true
		}
	}
	return false
}
