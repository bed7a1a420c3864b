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
	all := strings.Join(collected.texts, "\n")
	code := 0
	for _, value := range used.texts {
		quoted, _ := json.Marshal(value)
		for what, form := range map[string]string{
			"plain": value, "base64": base64.StdEncoding.EncodeToString([]byte(value)), "JSON": strings.Trim(string(quoted), `"`),
		} {
			if i := strings.Index(all, form); i >= 0 {
				line := all[strings.LastIndexByte(all[:i], '\n')+1:]
				line, _, _ = strings.Cut(line, "\n")
				fmt.Fprintf(os.Stderr, "a secret value (%s) leaked into: %s\n", what, line)
				code = 1
			}
		}
	}
	return code
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
