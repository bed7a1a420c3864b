package yamlfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/yamlfile"
)

type shade struct{ name string }

func (s *shade) UnmarshalText(text []byte) error {
	if string(text) == "mauve" {
		return errors.New("there is no mauve; use lilac")
	}
	s.name = string(text)
	return nil
}

type base struct {
	Service string `yaml:"service"`
}

type config struct {
	base  `yaml:"-"`
	Shade shade `yaml:"shade"`
	TLS   *struct {
		Cert string `yaml:"cert"`
		Key  string `yaml:"key"`
	} `yaml:"tls"`
	Wait   time.Duration     `yaml:"wait"`
	Many   int               `yaml:"many"`
	On     bool              `yaml:"on"`
	Names  []string          `yaml:"names"`
	Labels map[string]string `yaml:"labels"`
	Serve  []struct {
		At string `yaml:"at"`
	} `yaml:"serve"`
	Inline base `yaml:",inline"`
}

func TestLoad(t *testing.T) {
	var c config
	err := yamlfile.Load([]byte("# all of it\nservice: mcp-hr\nshade: lilac\ntls: {cert: a}\nwait: 30s\nmany: 3\non: true\nnames: [a, b]\nlabels: {x: y}\nserve:\n  - at: :1\n"), &c)
	if err != nil || c.Inline.Service != "mcp-hr" || c.Shade.name != "lilac" || c.TLS.Cert != "a" || c.Wait != 30*time.Second || c.Many != 3 || !c.On || len(c.Names) != 2 || c.Labels["x"] != "y" || c.Serve[0].At != ":1" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, empty := range []string{"", "# nothing\n", "tls:\nnames:\n"} {
		if err := yamlfile.Load([]byte(empty), new(config)); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

// Each says where, what, and what was meant, and shows no value.
func TestUnsound(t *testing.T) {
	for text, want := range map[string]string{
		"srvice: x":                        `line 1: unknown key "srvice"; did you mean "service"?`,
		"\nserve:\n  - {at: x, zzzzz: y}":  `line 3: unknown key "zzzzz"; known are at`,
		"tls: {crt: hunter2}":              `line 1: unknown key "crt"; did you mean "cert"?`,
		"tls: hunter2":                     `line 1: keys with values are wanted here, like name: …`,
		"just hunter2":                     `line 1: keys with values are wanted here, like name: …`,
		"names: hunter2":                   `line 1: a list is wanted here, like [one, two]`,
		"serve: {at: hunter2}":             `line 1: a list is wanted here, like [one, two]`,
		"many: [hunter2]":                  `line 1: a number is wanted here, and not several values`,
		"service: {hunter2: x}":            `line 1: a text is wanted here, and not several values`,
		"\n\nmany: hunter2":                `line 3: a number is wanted here`,
		"wait: hunter2":                    `line 1: a time like 30s is wanted here`,
		"on: hunter2":                      `line 1: true or false is wanted here`,
		"shade: mauve":                     `there is no mauve; use lilac`,
		"service: hunter2\nservice: x":     `line 2: the key "service" is there already, in line 1`,
		"many: 1\n---\nmany: 2":            `a second document begins; write one`,
		"a: [":                             `this is not YAML: `,
		"service: \"\xff\"":                `the file is not text in UTF-8: `,
		"x: *nobody":                       `this is not YAML: `,
		"tls: {cert: a, cert: hunter2}":    `line 1: the key "cert" is there already, in line 1`,
		"many: 99999999999999999999999999": `line 1: a number is wanted here`,
	} {
		err := yamlfile.Load([]byte(text), new(config))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") && !strings.Contains(want, "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("service: x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var c config
	if err := yamlfile.Read(path, 10, &c); err != nil || c.Inline.Service != "x" {
		t.Errorf("%+v, %v", c, err)
	}
	if err := yamlfile.Read(path, 9, &c); err == nil || !strings.Contains(err.Error(), "longer than 9 bytes") {
		t.Errorf("%v", err)
	}
	if err := yamlfile.Read(path+".not", 9, &c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("service: x\ntls: &a {cert: y}\nlabels: *a\n"))
	f.Add([]byte("<<: {service: x}\nserve: [{at: 1}]"))
	f.Add([]byte("? [a]\n: b"))
	f.Fuzz(func(_ *testing.T, data []byte) { _ = yamlfile.Load(data, new(config)) })
}
