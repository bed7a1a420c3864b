package phoenix_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tamshai/phoenix"

// What a room may import besides the standard library. A name without a dot in
// its first segment is a room of ours; any other is a module of somebody else.
const (
	anything = "*" // whatever it likes

	xsync    = "golang.org/x/sync"
	xsys     = "golang.org/x/sys"
	xterm    = "golang.org/x/term"
	xtime    = "golang.org/x/time"
	xtext    = "golang.org/x/text"
	vaultAPI = "github.com/hashicorp/vault/api"
	appRole  = "github.com/hashicorp/vault/api/auth/approle"
	goRetry  = "github.com/sethvargo/go-retry"
	age      = "filippo.io/age"
	pkcs12   = "software.sslmate.com/src/go-pkcs12"
	pgx      = "github.com/jackc/pgx/v5"
	mongo    = "go.mongodb.org/mongo-driver/v2"
	grpc     = "google.golang.org/grpc"
	mcp      = "github.com/modelcontextprotocol/go-sdk"
	yaml     = "go.yaml.in/yaml/v4"
	renameio = "github.com/google/renameio/v2"
	hcl      = "github.com/hashicorp/hcl"
	goleak   = "go.uber.org/goleak"
)

// A room is a package, or a tree of packages if its path ends in "/...".
type room struct {
	path string
	may  []string
}

// rooms is the table of the house. The longest path that fits a package is its
// room; a package that is in no room fails the test. A room that does not exist
// yet is simply not there.
var rooms = []room{
	{".", nil},
	{"secrets", []string{"internal/secmem"}},
	{"auditlog", []string{xsync}},
	{"auditlog/sink/...", []string{"auditlog", anything}},
	{"auditlog/audithttp", []string{"auditlog", "secrets", "tlsconfig"}},
	{"guard", []string{xtext}},
	{"guard/httpguard", []string{"guard", "auditlog"}},
	{"guard/mcpguard", []string{"guard", "auditlog", mcp}},
	{"tlsconfig", []string{"secrets", "auditlog"}},
	{"tlsconfig/tlsgrpc", []string{"tlsconfig", "secrets", "auditlog", grpc}},
	{"tlsconfig/assertion", []string{"tlsconfig", "secrets"}},
	{"tlsconfig/tlsmcp", []string{"tlsconfig", "secrets", "auditlog", mcp}},
	{"dbconn", []string{"secrets", "tlsconfig", "auditlog", pgx}},
	{"dbconn/mongoconn", []string{"secrets", "tlsconfig", "auditlog", mongo}},
	{"internal/secmem", nil},
	{"internal/memscan", nil},
	{"internal/vault", []string{"secrets", "internal/secmem", vaultAPI, appRole, goRetry}},
	{"internal/sealed", []string{"secrets", age}},
	{"internal/sdnotify", nil},
	{"internal/unixsock", nil},
	{"internal/buildinfo", nil},
	{"internal/yamlfile", []string{yaml}},
	{"internal/freeport", nil},                                                       // for tests
	{"internal/leak", []string{goleak}},                                              // for tests
	{"internal/testpki", nil},                                                        // for tests
	{"internal/realpg", []string{"internal/freeport", "internal/testpki", pgx}},      // for tests
	{"internal/realmongo", []string{"internal/freeport", "internal/testpki", mongo}}, // for tests
	{"internal/reals3", []string{"internal/freeport"}},                               // for tests
	{"internal/certfile", []string{"secrets", "tlsconfig", pkcs12}},
	{"bootstrap", []string{"secrets", "auditlog", "tlsconfig", "internal/vault", "internal/sealed", "internal/secmem", xsync}},
	{"provision", []string{"secrets", "auditlog", "internal/vault", "internal/sealed", "internal/yamlfile", yaml, xsync, xtime, renameio}},
	{"vaulttest", nil},
	{"vaulttest/conformance", []string{"vaulttest", "internal/realvault"}},
	{"internal/realvault", []string{"internal/freeport", xsys}},
	{"internal/doctor", []string{"bootstrap", "provision", "internal/vault", "secrets", "tlsconfig", "dbconn", hcl, xsync}},
	{"internal/demo", []string{"bootstrap", "provision", "vaulttest", "internal/realvault", "internal/vault", "auditlog", "secrets", "tlsconfig", "guard", "guard/httpguard", "examples/tamshai", "examples/agent", "examples/node", "dbconn", "internal/realpg"}},
	{"internal/agent/pgproxy", []string{"dbconn", "internal/unixsock", "secrets", "auditlog", pgx, xsys}},
	{"internal/agent/...", []string{"bootstrap", "tlsconfig", "tlsconfig/assertion", "dbconn", "auditlog", "auditlog/audithttp", "secrets", "internal/secmem", "internal/sdnotify", "internal/unixsock", "internal/buildinfo", "internal/yamlfile", yaml, xsys}},
	{"cmd/phoenix-agent", []string{"internal/agent"}},
	{"cmd/phoenix/...", []string{anything}},
	{"examples/...", []string{anything}},
	{"test/...", []string{anything}},
}

// testHelpers are packages for tests alone. They may import testing.
var testHelpers = []string{"vaulttest/conformance"}

// A reach says what a package may link, directly or through others.
type reach struct {
	from    string
	rooms   []string // of ours, besides itself
	modules []string // direct dependencies of it and of the rooms it reaches
	never   []string // modules, by prefix, that it must not link in any way
}

var (
	coreRooms   = []string{"secrets", "auditlog", "guard", "tlsconfig", "internal/secmem"}
	coreModules = []string{xsync, xtext}
)

var reaches = []reach{
	{from: "secrets", rooms: coreRooms, modules: coreModules},
	{from: "auditlog", rooms: coreRooms, modules: coreModules},
	{from: "guard", rooms: coreRooms, modules: coreModules},
	{from: "tlsconfig", rooms: coreRooms, modules: coreModules},
	{
		from:    "bootstrap",
		rooms:   append([]string{"internal/vault", "internal/sealed"}, coreRooms...),
		modules: append([]string{vaultAPI, appRole, goRetry, age}, coreModules...),
		never: []string{
			pgx, "github.com/lib/pq", "go.mongodb.org/", "github.com/aws/", "cloud.google.com/", "github.com/Azure/",
			"go.yaml.in/", "gopkg.in/yaml", "sigs.k8s.io/yaml", "github.com/urfave/", "github.com/spf13/", mcp, grpc,
		},
	},
}

// apart says what a program must not link in any way: rooms by their tree,
// modules by prefix. The agent is small because it delivers nothing itself.
var apart = []struct {
	from  string
	never []string
}{
	{"cmd/phoenix-agent", []string{"auditlog/sink", "github.com/aws/", "go.mongodb.org/"}},
	{"bootstrap", []string{"auditlog/sink"}},
	{"dbconn/mongoconn", []string{pgx}},
	{"dbconn", []string{mongo}},
}

// pkg is what the walls need to know of a package.
type pkg struct {
	module      string   // empty for the standard library
	imports     []string // of the package itself
	testImports []string // of its tests
}

type graph map[string]pkg

// checkWalls returns what breaks the walls, in the order of the packages.
func checkWalls(g graph) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, path := range ours(g) {
		name, p := local(path), g[path]
		r, ok := roomOf(name)
		if !ok {
			report("%s is in no room: add it to the table in walls_test.go", name)
			continue
		}
		for _, dep := range p.imports {
			if !mayImport(r, name, dep, g) {
				report("%s imports %s", name, dep)
			}
			if dep == "testing" && !within(name, "test") && !slices.Contains(testHelpers, name) {
				report("%s imports testing outside a test: take an interface", name)
			}
		}
		// Only internal/vault knows the door to Vault, in tests too. Programs
		// under test/ may compare with it.
		if name == "internal/vault" || within(name, "test") {
			continue
		}
		for _, dep := range slices.Concat(p.imports, p.testImports) {
			if m := g[dep].module; m == vaultAPI || m == appRole || within(dep, vaultAPI) {
				report("%s imports %s: only internal/vault may", name, dep)
			}
		}
	}
	for _, r := range reaches {
		start := module + "/" + r.from
		if _, ok := g[start]; !ok {
			continue
		}
		via := closure(g, start)
		for _, path := range sorted(via) {
			p := g[path]
			way := strings.Join(wayTo(via, path), " -> ")
			switch {
			case p.module == module:
				if name := local(path); path != start && !slices.Contains(r.rooms, name) {
					report("%s reaches %s: %s", r.from, name, way)
				}
			case p.module == "":
			case slices.ContainsFunc(r.never, func(prefix string) bool { return strings.HasPrefix(p.module, prefix) }):
				report("%s must never reach %s: %s", r.from, p.module, way)
			case g[via[path]].module == module && !slices.Contains(r.modules, p.module):
				report("%s reaches %s: %s", r.from, p.module, way)
			}
		}
	}
	for _, a := range apart {
		via := closure(g, module+"/"+a.from)
		for _, path := range sorted(via) {
			for _, never := range a.never {
				if m := g[path].module; m == module && within(local(path), never) || m != module && strings.HasPrefix(m, never) {
					report("%s must never reach %s: %s", a.from, local(path), strings.Join(wayTo(via, path), " -> "))
				}
			}
		}
	}
	for _, path := range ours(g) {
		if !strings.HasPrefix(local(path), "cmd/") {
			continue
		}
		if via := closure(g, path); via["testing"] != "" {
			report("%s links testing: %s", local(path), strings.Join(wayTo(via, "testing"), " -> "))
		}
	}
	return found
}

// mayImport reports whether room r, which package name is in, may import dep.
func mayImport(r room, name, dep string, g graph) bool {
	d := g[dep]
	if d.module == "" { // the standard library, or "C" and "unsafe"
		return true
	}
	for _, may := range r.may {
		switch {
		case may == anything && (d.module != module || freeRoom(name)):
			return true
		case d.module == module && local(dep) == may, d.module == may:
			return true
		}
	}
	if d.module == module {
		// The packages of one tree belong together.
		tree, isTree := strings.CutSuffix(r.path, "/...")
		return isTree && within(local(dep), tree)
	}
	return false
}

// freeRoom reports whether "anything" includes our own rooms: it does for what
// composes them, not for the sinks, where it means the vendor's library.
func freeRoom(name string) bool {
	return name == "internal/demo" || within(name, "cmd") || within(name, "examples") || within(name, "test")
}

func roomOf(name string) (room, bool) {
	var best room
	found := false
	for _, r := range rooms {
		tree, isTree := strings.CutSuffix(r.path, "/...")
		if name != r.path && (!isTree || !within(name, tree)) {
			continue
		}
		if !found || len(r.path) > len(best.path) {
			best, found = r, true
		}
	}
	return best, found
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// local is the package's path inside the module, "." for its root.
func local(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func ours(g graph) []string {
	var paths []string
	for path, p := range g {
		if p.module == module {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// closure returns every package that start links and, for each, a package that
// imports it; start itself maps to "". A package of ours is preferred as the
// importer, so that a direct dependency shows as one.
func closure(g graph, start string) map[string]string {
	via := map[string]string{start: ""}
	queue, later := []string{start}, []string(nil)
	for len(queue) > 0 || len(later) > 0 {
		if len(queue) == 0 {
			queue, later = later, nil
		}
		path := queue[0]
		queue = queue[1:]
		for _, dep := range g[path].imports {
			if _, seen := via[dep]; seen {
				continue
			}
			via[dep] = path
			if g[dep].module == module {
				queue = append(queue, dep)
			} else {
				later = append(later, dep)
			}
		}
	}
	return via
}

func wayTo(via map[string]string, path string) []string {
	var way []string
	for ; path != ""; path = via[path] {
		way = append(way, local(path))
	}
	slices.Reverse(way)
	return way
}

func sorted(m map[string]string) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// load asks the go command for the module's packages and all they depend on.
func load(t *testing.T) graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-buildvcs=false",
		"-json=ImportPath,Standard,Module,Imports,TestImports,XTestImports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	g := graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath                         string
			Standard                           bool
			Module                             *struct{ Path string }
			Imports, TestImports, XTestImports []string
		}
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return g
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		entry := pkg{imports: p.Imports, testImports: slices.Concat(p.TestImports, p.XTestImports)}
		if !p.Standard && p.Module != nil {
			entry.module = p.Module.Path
		}
		g[p.ImportPath] = entry
	}
}

func TestWalls(t *testing.T) {
	g := load(t)
	for _, name := range []string{".", "secrets", "auditlog", "internal/realvault"} {
		path := module
		if name != "." {
			path += "/" + name
		}
		if g[path].module != module {
			t.Errorf("go list did not report %s: is the test looking at the right module?", path)
		}
	}
	for _, violation := range checkWalls(g) {
		t.Error(violation)
	}
}

// The check must be able to fail.
func TestCheckWalls(t *testing.T) {
	in := func(name string) string { return module + "/" + name }
	mod := func(path string, imports ...string) pkg { return pkg{module: path, imports: imports} }
	our := func(imports ...string) pkg { return mod(module, imports...) }
	tests := []struct {
		name string
		g    graph
		want []string // substrings, one for each violation; none means a clean house
	}{
		{"a clean house", graph{
			"fmt":                   {},
			"testing":               {},
			module:                  our(),
			in("secrets"):           our("fmt"),
			in("auditlog"):          our("fmt", xsync+"/errgroup"),
			xsync + "/errgroup":     mod(xsync),
			in("internal/vault"):    our(in("secrets"), vaultAPI, appRole),
			vaultAPI:                mod(vaultAPI, "example.org/its/own"),
			appRole:                 mod(appRole, vaultAPI),
			"example.org/its/own":   mod("example.org/its/own"),
			in("bootstrap"):         our(in("internal/vault"), in("auditlog"), in("internal/sealed")),
			in("internal/sealed"):   our(age),
			age:                     mod(age),
			in("cmd/phoenix"):       our(in("bootstrap"), in("cmd/phoenix/parts"), "example.org/cli"),
			in("cmd/phoenix/parts"): our(),
			"example.org/cli":       mod("example.org/cli"),
			in("auditlog/sink/s3"):  our(in("auditlog"), "github.com/aws/sdk"),
			"github.com/aws/sdk":    mod("github.com/aws/sdk"),
			in("test/e2e"):          our("testing", vaultAPI, in("bootstrap")),
		}, nil},
		{"secrets with a dependency", graph{
			in("secrets"): our("example.org/x"), "example.org/x": mod("example.org/x"),
		}, []string{"secrets imports example.org/x", "secrets reaches example.org/x"}},
		{"an arrow that points up", graph{
			in("secrets"): our(in("bootstrap")), in("bootstrap"): our(),
		}, []string{"secrets imports " + in("bootstrap"), "secrets reaches bootstrap: secrets -> bootstrap"}},
		{"auditlog through a sink", graph{
			in("auditlog"): our(in("auditlog/sink/s3")), in("auditlog/sink/s3"): our(),
		}, []string{"auditlog imports", "auditlog reaches auditlog/sink/s3"}},
		{"a sink that knows Vault", graph{
			in("auditlog/sink/s3"): our(in("internal/vault")), in("internal/vault"): our(),
		}, []string{"auditlog/sink/s3 imports " + in("internal/vault")}},
		{"another door to Vault", graph{
			in("provision"): our(vaultAPI), vaultAPI: mod(vaultAPI),
		}, []string{"provision imports " + vaultAPI, "only internal/vault may"}},
		{"another door to Vault in a program", graph{
			in("cmd/phoenix"): our(appRole), appRole: mod(appRole),
		}, []string{"only internal/vault may"}},
		{"another door to Vault in a test", graph{
			in("bootstrap"): {module: module, testImports: []string{vaultAPI}}, vaultAPI: mod(vaultAPI),
		}, []string{"only internal/vault may"}},
		{"a driver behind an allowed module", graph{
			in("bootstrap"): our(in("internal/sealed")), in("internal/sealed"): our(age),
			age: mod(age, pgx), pgx: mod(pgx),
		}, []string{"bootstrap must never reach " + pgx + ": bootstrap -> internal/sealed -> " + age}},
		{"a dependency in a room that bootstrap uses", graph{
			in("bootstrap"): our(in("auditlog")), in("auditlog"): our("example.org/x"), "example.org/x": mod("example.org/x"),
		}, []string{"auditlog imports", "auditlog reaches", "bootstrap reaches example.org/x: bootstrap -> auditlog -> example.org/x"}},
		{"a direct dependency that an allowed module has too", graph{
			in("bootstrap"): our(age, in("internal/sealed")), in("internal/sealed"): our(age, "example.org/x"),
			age: mod(age, "example.org/x"), "example.org/x": mod("example.org/x"),
		}, []string{"bootstrap imports " + age, "internal/sealed imports example.org/x", "bootstrap reaches example.org/x"}},
		{"a sink in the agent", graph{
			in("cmd/phoenix-agent"): our(in("internal/agent")), in("internal/agent"): our(in("auditlog/sink/s3")),
			in("auditlog/sink/s3"): our("github.com/aws/sdk"), "github.com/aws/sdk": mod("github.com/aws/sdk"),
		}, []string{"internal/agent imports", "cmd/phoenix-agent must never reach github.com/aws/sdk", "cmd/phoenix-agent must never reach auditlog/sink/s3: cmd/phoenix-agent -> internal/agent"}},
		{"testing in a library", graph{
			in("vaulttest"): our("testing"), "testing": {},
		}, []string{"vaulttest imports testing outside a test"}},
		{"testing behind a program", graph{
			in("cmd/phoenix"): our("example.org/x"), "example.org/x": mod("example.org/x", "testing"), "testing": {},
		}, []string{"cmd/phoenix links testing: cmd/phoenix -> example.org/x -> testing"}},
		{"a package in no room", graph{
			in("util"): our(),
		}, []string{"util is in no room"}},
		{"a package below a room that is no tree", graph{
			in("secrets/extra"): our(),
		}, []string{"secrets/extra is in no room"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := checkWalls(tt.g)
			if len(got) != len(tt.want) {
				t.Fatalf("got %d violations, want %d:\n%s", len(got), len(tt.want), strings.Join(got, "\n"))
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("violation %d is %q, want it to contain %q", i, got[i], want)
				}
			}
		})
	}
}
