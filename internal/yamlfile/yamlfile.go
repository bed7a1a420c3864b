// Package yamlfile reads configuration in YAML into structs, and tells who wrote
// it what is wrong with it: the line, the key that was meant, what is wanted
// there. It shows no value, because it cannot tell which are secret.
package yamlfile

import (
	"bytes"
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Read is [Load] for the file at path, which may have at most max bytes.
func Read(path string, max int64, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > max {
		return fmt.Errorf("the file is longer than %d bytes", max)
	}
	return Load(data, into)
}

// Load reads the one document in data into the struct that into points to.
// Unknown and repeated keys are errors. Nothing but comments is the empty
// document.
func Load(data []byte, into any) error {
	var doc, second yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err == nil {
		err = loader.Load(&doc)
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return readable(err)
	}
	if err := loader.Load(&second); err == nil {
		return fmt.Errorf("line %d: a second document begins; write one", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return readable(err)
	}
	if err := keys(&doc, reflect.TypeOf(into)); err != nil {
		return err
	}
	if loader, err = yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields()); err == nil {
		err = loader.Load(into)
	}
	return readable(err)
}

// keys returns an error for the first key of n that a struct within t does not
// have, and for a list or mapping where there should be none.
func keys(n *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.DocumentNode:
		return keys(n.Content[0], t)
	case n.Kind == yaml.AliasNode, readsItself(t):
		return nil
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if n.Kind != yaml.MappingNode {
			return fmt.Errorf("line %d: keys with values are wanted here, like name: …", n.Line)
		}
		return members(n, t)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: a list is wanted here, like [one, two]", n.Line)
		}
		for _, item := range n.Content {
			if err := keys(item, t.Elem()); err != nil {
				return err
			}
		}
	default:
		if n.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d: %s is wanted here, and not several values", n.Line, kindOf(t))
		}
	}
	return nil
}

func members(n *yaml.Node, t reflect.Type) error {
	var known map[string]reflect.Type
	var names []string
	if t.Kind() == reflect.Struct {
		known = map[string]reflect.Type{}
		names = fields(t, known)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value == "<<" {
			continue
		}
		of, ok := known[key.Value]
		if known == nil {
			of, ok = t.Elem(), true
		}
		if !ok {
			return fmt.Errorf("line %d: unknown key %q%s", key.Line, key.Value, Suggest(key.Value, names))
		}
		if err := keys(value, of); err != nil {
			return err
		}
	}
	return nil
}

// fields adds the keys of a struct to known, and returns them in their order.
func fields(t reflect.Type, known map[string]reflect.Type) (names []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			names = append(names, fields(f.Type, known)...)
		case f.IsExported() && name != "" && name != "-":
			known[name] = f.Type
			names = append(names, name)
		}
	}
	return names
}

func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func kindOf(t reflect.Type) string {
	switch {
	case t.String() == "time.Duration":
		return "a time like 30s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64:
		return "a number"
	}
	return "a text"
}

// what the library says of a value that does not fit, and of a repeated key.
var (
	unfit    = regexp.MustCompile("^cannot construct !!\\w+(?: `.*`)? into (\\S+)$")
	repeated = regexp.MustCompile(`^mapping key (".*") already defined at line (\d+)$`)
	kinds    = map[string]string{"time.Duration": "a time like 30s", "bool": "true or false", "string": "a text"}
)

// readable is an error of the library in our words.
func readable(err error) error {
	if err == nil {
		return nil
	}
	line, text := Explain(err)
	if line == 0 {
		return errors.New(text)
	}
	return fmt.Errorf("line %d: %s", line, text)
}

// Explain says in our words what the library found, the first if it found several
// faults. The line is 0 if it is not known.
func Explain(err error) (line int, text string) {
	var one *yaml.LoadError
	if !errors.As(err, &one) {
		return 0, strings.Join(strings.Fields(err.Error()), " ")
	}
	line, text = one.Mark.Line, strings.Join(strings.Fields(one.Message), " ")
	text = strings.TrimPrefix(text, fmt.Sprintf("line %d: ", line)) // of a type that reads itself
	if m := unfit.FindStringSubmatch(text); m != nil {
		return line, cmp.Or(kinds[m[1]], "a number") + " is wanted here"
	}
	if m := repeated.FindStringSubmatch(text); m != nil {
		return line, fmt.Sprintf("the key %s is there already, in line %s", m[1], m[2])
	}
	switch one.Stage {
	case "reader":
		return line, "the file is not text in UTF-8: " + text
	case "scanner", "parser", "composer":
		return line, "this is not YAML: " + text
	}
	return line, text
}
