package agent

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/agent/sidecar"
	"github.com/tamshai/phoenix/internal/yamlfile"
)

// maxConfig is the longest configuration file in bytes.
const maxConfig = 1 << 20

// document is the configuration file. Unknown and repeated keys are refused.
// Each key does what the flag of that name does.
type document struct {
	Service     string `yaml:"service"`
	Environment string `yaml:"environment"`

	Vault struct {
		Addr       string        `yaml:"addr"`
		Namespace  string        `yaml:"namespace"`
		CACert     string        `yaml:"ca_cert"`
		ServerName string        `yaml:"server_name"`
		Mount      string        `yaml:"mount"`
		Role       string        `yaml:"role"`
		RoleID     string        `yaml:"role_id"`
		Timeout    time.Duration `yaml:"timeout"`
	} `yaml:"vault"`

	SecretID struct {
		File     string `yaml:"file"`
		Sealed   string `yaml:"sealed"`
		Identity string `yaml:"identity"`
		Wrapped  bool   `yaml:"require_wrapped"`
		Proof    bool   `yaml:"require_proof"`
		NoWait   bool   `yaml:"no_wait"`
	} `yaml:"secret_id"`
	Ticket string        `yaml:"ticket"`
	Poll   time.Duration `yaml:"poll"`
	Budget time.Duration `yaml:"budget"`
	Drain  time.Duration `yaml:"drain"`

	Env      map[string]string     `yaml:"env"`
	Pass     []string              `yaml:"pass"`
	Files    []fileEntry           `yaml:"files"`
	OnChange map[string]actionText `yaml:"on_change"`
	Window   time.Duration         `yaml:"window"`

	Command    []string      `yaml:"command"`
	Restarts   *int          `yaml:"restarts"`
	StopSignal string        `yaml:"stop_signal"`
	Grace      time.Duration `yaml:"grace"`
	Jitter     time.Duration `yaml:"jitter"`

	Health struct {
		Check    string        `yaml:"check"`
		Interval time.Duration `yaml:"interval"`
		Timeout  time.Duration `yaml:"timeout"`
	} `yaml:"health"`
	Listen   string        `yaml:"listen"`
	MaxStale time.Duration `yaml:"max_stale"`

	Audit struct {
		Dir    string `yaml:"dir"`
		Signer string `yaml:"signer"`
		Listen string `yaml:"listen"`
		Token  string `yaml:"token"`
	} `yaml:"audit"`
	Identity struct {
		Role  string        `yaml:"role"`
		Names []string      `yaml:"names"`
		TTL   time.Duration `yaml:"ttl"`
		Roots string        `yaml:"roots"`
		CRL   string        `yaml:"crl"`
	} `yaml:"identity"`
	Sidecar sidecar.Config `yaml:",inline"` // serve, call, proxy, tunnel, users

	Postgres []Postgres `yaml:"postgres"`
}

type fileEntry struct {
	Path     string     `yaml:"path"`
	From     string     `yaml:"from"`
	Template string     `yaml:"template"`
	Mode     string     `yaml:"mode"`
	Owner    string     `yaml:"owner"`
	Disk     bool       `yaml:"disk"`
	OnChange actionText `yaml:"on_change"`
}

// actionText is an action as ParseAction reads it or, so that the words of a
// command may hold blanks, {run: [CMD, ARG…]}.
type actionText struct{ Action }

// UnmarshalYAML reads either form.
func (a *actionText) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		var list struct {
			Run []string `yaml:"run"`
		}
		if len(n.Content) != 2 || n.Content[0].Value != "run" {
			return fmt.Errorf("line %d: an action is a text, or run: [CMD, ARG…]", n.Line)
		}
		if err := n.Decode(&list); err != nil {
			return err
		}
		if len(list.Run) == 0 || list.Run[0] == "" {
			return fmt.Errorf("line %d: run names no command", n.Line)
		}
		a.Action = Action{Kind: Hook, Run: list.Run}
		return nil
	}
	action, err := ParseAction(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	a.Action = action
	return nil
}

// LoadFile reads a configuration file. Templates that it names start from its
// directory.
func LoadFile(path string) (Config, error) {
	var d document
	if err := yamlfile.Read(path, maxConfig, &d); err != nil {
		return Config{}, usage("-config %s: %w", path, err)
	}
	return d.load(path)
}

// Load reads a configuration; name stands for it in errors, and its directory
// is where templates start from.
func Load(name string, data []byte) (Config, error) {
	var d document
	if err := yamlfile.Load(data, &d); err != nil {
		return Config{}, usage("%s: %w", name, err)
	}
	return d.load(name)
}

func (d *document) load(name string) (Config, error) {
	c, err := d.config(filepath.Dir(name))
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (d *document) config(dir string) (Config, error) {
	c := Config{
		Boot: bootstrap.Config{
			Service: d.Service, Environment: d.Environment,
			Addr: d.Vault.Addr, Namespace: d.Vault.Namespace, CACertFile: d.Vault.CACert, ServerName: d.Vault.ServerName,
			Mount: d.Vault.Mount, Role: d.Vault.Role, RoleID: d.Vault.RoleID, Timeout: d.Vault.Timeout,
			SecretIDFile: d.SecretID.File, SealedFile: d.SecretID.Sealed, IdentityFile: d.SecretID.Identity,
			RequireWrapped: d.SecretID.Wrapped, RequireProof: d.SecretID.Proof,
			TicketFile: d.Ticket, Poll: d.Poll, Budget: d.Budget, Drain: d.Drain,
		},
		Pass: d.Pass, Window: d.Window, Command: d.Command, Restarts: DefaultRestarts, Grace: d.Grace, Jitter: d.Jitter,
		Health: Health{Check: d.Health.Check, Interval: d.Health.Interval, Timeout: d.Health.Timeout}, Listen: d.Listen, MaxStale: d.MaxStale,
		Identity: Identity(d.Identity), Sidecar: d.Sidecar, Audit: Audit(d.Audit), Postgres: d.Postgres,
	}
	if d.SecretID.NoWait {
		c.Boot.Spent = bootstrap.FailWhenSpent
	}
	if d.Restarts != nil {
		c.Restarts = *d.Restarts
	}
	var err error
	if d.StopSignal != "" {
		if c.StopSignal, err = parseSignal(d.StopSignal); err != nil {
			return Config{}, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		c.Env = append(c.Env, Variable{name, d.Env[name]})
	}
	for ref, action := range d.OnChange {
		if c.OnChange == nil {
			c.OnChange = map[string]Action{}
		}
		c.OnChange[ref] = action.Action
	}
	for _, entry := range d.Files {
		f := File{Path: entry.Path, From: entry.From, Template: entry.Template, UID: -1, GID: -1, Disk: entry.Disk, OnChange: entry.OnChange.Action}
		if f.Template != "" && !filepath.IsAbs(f.Template) {
			f.Template = filepath.Join(dir, f.Template)
		}
		if f.Mode, err = parseMode(entry.Mode); err != nil {
			return Config{}, err
		}
		if f.UID, f.GID, err = parseOwner(entry.Owner); err != nil {
			return Config{}, err
		}
		c.Files = append(c.Files, f)
	}
	return c, nil
}

func parseMode(s string) (os.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	mode, err := strconv.ParseUint(s, 8, 32)
	if err != nil || mode == 0 || mode > 0o777 {
		return 0, usage("%q is no mode of a file: write it in octal, like 0640", s)
	}
	return os.FileMode(mode), nil
}

// parseOwner reads "UID", "UID:GID" and ":GID". Names are not looked up: the
// agent's container seldom knows those of the child's.
func parseOwner(s string) (uid, gid int, err error) {
	uid, gid = -1, -1
	if s == "" {
		return uid, gid, nil
	}
	user, group, _ := strings.Cut(s, ":")
	for _, part := range []struct {
		text string
		id   *int
	}{{user, &uid}, {group, &gid}} {
		if part.text == "" {
			continue
		}
		id, err := strconv.ParseUint(part.text, 10, 31)
		if err != nil {
			return -1, -1, usage("%q is no owner: write it in numbers, like 999:999", s)
		}
		*part.id = int(id)
	}
	return uid, gid, nil
}
