package guard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// events redacts a stream of events.
type events struct {
	g      *Guard
	cfg    EventsConfig
	walker walker // of all that is no piece
	pieces map[string]*piece
	order  []string // of the keys of pieces, as they came
	// Of the event at hand:
	kind string
	over func(*piece) bool // whether it ends the text
	fed  map[string]string // the texts that it has a part of, with their choice
	part []*piece          // all that it has a part of, be that empty
	call *piece            // the arguments that begin in it
}

// piece is a text that comes in several events.
type piece struct {
	text    *redactor
	restore *restorer
	args    []byte // of a tool
	isArgs  bool
	index   string // of the block that it belongs to
	choice  string // of several answers, the one that it belongs to
	last    Event  // the last event with a piece of it, redacted
	path    []string
}

func (e *events) close() {
	e.count(e.walker.r.result)
	e.walker.r.close()
	for _, p := range e.pieces {
		if p.text != nil {
			e.count(p.text.result)
			p.text.close()
		}
	}
}

// count adds what was found in a text.
func (e *events) count(r Result) {
	if e.cfg.Result == nil {
		return
	}
	for label, n := range r.Counts {
		for range n {
			e.cfg.Result.count(label)
		}
	}
}

// take returns what leaves when event in comes.
func (e *events) take(in Event) ([]Event, error) {
	e.kind, e.over, e.fed, e.part, e.call = "", nil, nil, nil, nil
	in.Name, in.ID = e.field(in.Name), e.field(in.ID)
	if err := e.walker.r.err(); err != nil {
		return nil, err
	}
	if !json.Valid(in.Data) {
		if strings.TrimSpace(string(in.Data)) == "[DONE]" {
			out, err := e.flush(func(*piece) bool { return true })
			return append(out, in), err
		}
		return e.plain(in)
	}
	var doc any
	dec := json.NewDecoder(bytes.NewReader(in.Data))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("guard: an event cannot be read: %w", err)
	}
	root, _ := doc.(map[string]any)
	index := indexOf(root)
	e.kind, _ = root["type"].(string)
	if e.kind == "" {
		e.kind = in.Name
	}
	e.over, e.fed = ended(e.kind, root, index), map[string]string{}
	changed, err := e.leaves(in, doc, nil, index)
	if err != nil {
		return nil, err
	}
	if changed || members(doc) < colons(in.Data) { // some were there twice
		if in.Data, err = marshal(doc); err != nil {
			return nil, err
		}
	}
	for _, p := range e.part {
		p.last = in // redacted
	}
	out, err := e.flush(func(p *piece) bool {
		return e.over(p) || p.isArgs && e.callsNext(p) || !p.isArgs && e.goesOnElsewhere(p)
	})
	if err != nil {
		return out, err
	}
	return append(out, in), nil
}

// callsNext reports whether the event at hand begins another call of a tool of the answer
// that p belongs to, and p is complete: clients read the arguments of a call when the
// next one begins.
func (e *events) callsNext(p *piece) bool {
	return e.call != nil && e.call.choice == p.choice && !slices.Contains(e.part, p) &&
		bytes.HasPrefix(p.args, []byte("{")) && json.Valid(p.args)
}

// goesOnElsewhere reports whether the event at hand has another text of the answer
// that p belongs to, and none of p.
func (e *events) goesOnElsewhere(p *piece) bool {
	elsewhere := false
	for key, choice := range e.fed {
		if e.pieces[key] == p {
			return false
		}
		elsewhere = elsewhere || choice == p.choice
	}
	return elsewhere
}

// members returns how many members the objects in doc have.
func members(doc any) int {
	n := 0
	switch v := doc.(type) {
	case map[string]any:
		n = len(v)
		for _, item := range v {
			n += members(item)
		}
	case []any:
		for _, item := range v {
			n += members(item)
		}
	}
	return n
}

// colons returns how many colons a document has outside of strings: one for each
// member.
func colons(doc []byte) int {
	n := 0
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			i = stringEnd(doc, i) - 1
		case ':':
			n++
		}
	}
	return n
}

// field redacts a field of an event that is not its data.
func (e *events) field(s string) string {
	if s == "" {
		return ""
	}
	return e.walker.named("", s)
}

// plain takes an event whose data is no JSON: a piece of text.
func (e *events) plain(in Event) ([]Event, error) {
	text, err := e.feed("", in, nil, "", string(in.Data))
	if err != nil || text == "" {
		return nil, err
	}
	in.Data = []byte(text)
	return []Event{in}, nil
}

// leaves redacts doc, which is at path, in place. Pieces of texts become what
// leaves of the text. It reports whether it changed anything.
func (e *events) leaves(in Event, doc any, path []string, index string) (changed bool, err error) {
	visit := func(at []string, item any, set func(any)) error {
		e.walker.r.known = e.cfg.Known && !inArguments(at)
		var clean any
		name := at[len(at)-1]
		switch v := item.(type) {
		case string:
			if isPiece(name, path, in) {
				text, err := e.feed(name, in, at, index, v)
				if err != nil {
					return err
				}
				clean = text
			} else if e.cfg.Keep != nil && e.cfg.Keep(name, v) && !inArguments(path) {
				clean = e.restored(v)
			} else {
				clean = e.restored(e.walker.named(name, v))
			}
		case json.Number:
			if clean = e.restored(e.walker.named(name, v.String())); clean == v.String() {
				return nil
			}
		default:
			c, err := e.leaves(in, item, at, index)
			changed = changed || c
			return err
		}
		if clean != item {
			set(clean)
			changed = true
		}
		return e.walker.r.err()
	}
	switch v := doc.(type) {
	case map[string]any:
		for _, name := range sortedKeys(v) {
			if err := visit(append(slices.Clip(path), name), v[name], func(clean any) { v[name] = clean }); err != nil {
				return changed, err
			}
			if clean := e.restored(e.walker.named("", name)); clean != name {
				v[clean] = v[name]
				delete(v, name)
				changed = true
			}
		}
	case []any:
		for i, item := range v {
			if err := visit(append(slices.Clip(path), place(i, item)), item, func(clean any) { v[i] = clean }); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// inArguments reports whether path leads into the arguments of a tool.
func inArguments(path []string) bool {
	return slices.ContainsFunc(path, func(name string) bool { return name == "input" || name == "args" || name == "arguments" })
}

// place is the position of item, with the index that an interface gives it.
func place(i int, item any) string {
	if m, ok := item.(map[string]any); ok && m["index"] != nil {
		return strconv.Itoa(i) + "#" + fmt.Sprint(m["index"])
	}
	return strconv.Itoa(i)
}

// isPiece reports whether the string called name is a piece of a text that other
// events go on with.
func isPiece(name string, path []string, in Event) bool {
	switch name {
	case "partial_json", "arguments":
		return true
	case "text", "content", "thinking", "reasoning", "reasoning_content", "refusal", "transcript":
		return true
	case "delta":
		return len(path) == 0
	}
	return false
}

// feed gives s to the text that it is a piece of, and returns what leaves.
func (e *events) feed(name string, in Event, path []string, index, s string) (string, error) {
	key := index + "\x00" + in.Name + "\x00" + pieceKey(path)
	p := e.pieces[key]
	if p == nil {
		p = &piece{index: index, choice: choiceOf(path), isArgs: name == "partial_json" || name == "arguments" || name == "delta" && strings.Contains(e.kind, "arguments")}
		if !p.isArgs {
			p.text = newRedactor(e.g, e.cfg.Conversation)
			p.text.known = e.cfg.Known
			p.restore = e.restorer()
		}
		e.pieces[key] = p
		e.order = append(e.order, key)
		if p.isArgs {
			e.call = p
		}
	}
	p.last, p.path = in, path
	e.part = append(e.part, p)
	if s != "" && e.fed != nil {
		e.fed[key] = p.choice
	}
	if p.isArgs {
		if len(p.args)+len(s) > maxArguments {
			return "", fmt.Errorf("%w: arguments of more than %d bytes", ErrEvents, maxArguments)
		}
		p.args = append(p.args, s...)
		return e.rest(key, p)
	}
	text := p.text.next(nil, []byte(s), false)
	if err := p.text.err(); err != nil {
		return "", err
	}
	if p.restore != nil {
		text = p.restore.next(nil, text, false)
	}
	rest, err := e.rest(key, p)
	return string(text) + rest, err
}

// rest returns what is held back of p if the event at hand ends it.
func (e *events) rest(key string, p *piece) (string, error) {
	if e.over == nil || !e.over(p) {
		return "", nil
	}
	delete(e.pieces, key)
	e.order = slices.DeleteFunc(e.order, func(k string) bool { return k == key })
	rest, err := e.end(p)
	return string(rest), err
}

// restored is s, which is no piece, with the values of pseudonyms.
func (e *events) restored(s string) string {
	if !e.cfg.Restore || e.cfg.Conversation == nil {
		return s
	}
	if back, err := e.cfg.Conversation.RestoreJSON([]byte(s)); err == nil {
		return string(back)
	}
	return string(e.cfg.Conversation.Restore([]byte(s)))
}

func (e *events) restorer() *restorer {
	if !e.cfg.Restore || e.cfg.Conversation == nil {
		return nil
	}
	return &restorer{c: e.cfg.Conversation}
}

// pieceKey is path with the indexes that interfaces give in place of positions.
func pieceKey(path []string) string {
	var key []string
	for _, part := range path {
		key = append(key, indexed(part))
	}
	return strings.Join(key, "\x00")
}

// indexed is the index that an interface gives a place, or its position.
func indexed(place string) string {
	if _, index, ok := strings.Cut(place, "#"); ok {
		return index
	}
	return place
}

// choiceOf returns which of several answers path leads into, "" if there is one.
func choiceOf(path []string) string {
	if len(path) > 1 && isChoices(path[0]) {
		return indexed(path[1])
	}
	return ""
}

func isChoices(name string) bool { return name == "choices" || name == "candidates" }

// flush ends the texts that over is true for, and returns events with what was held
// back of them.
func (e *events) flush(over func(*piece) bool) ([]Event, error) {
	var out []Event
	var kept []string
	for _, key := range e.order {
		p := e.pieces[key]
		if !over(p) {
			kept = append(kept, key)
			continue
		}
		delete(e.pieces, key)
		rest, err := e.end(p)
		if err != nil {
			return out, err
		}
		if len(rest) == 0 {
			continue
		}
		event, err := p.event(rest)
		if err != nil {
			return out, err
		}
		out = append(out, event)
	}
	e.order = kept
	return out, nil
}

// end returns what is held back of p.
func (e *events) end(p *piece) ([]byte, error) {
	if !p.isArgs {
		defer p.text.close()
		rest := p.text.next(nil, nil, true)
		e.count(p.text.result)
		if err := p.text.err(); err != nil {
			return nil, err
		}
		if p.restore != nil {
			rest = p.restore.next(nil, rest, true)
		}
		return rest, nil
	}
	c := e.cfg.Conversation
	restores := e.cfg.Restore && c != nil
	var rest []byte
	var result Result
	var err error
	switch valid := json.Valid(p.args); {
	case valid && restores:
		rest, result, err = c.Arguments(p.args)
	case valid:
		rest, result, err = e.g.redactJSON(c, p.args)
	default: // broken off, or no JSON: text
		if rest, result, err = e.g.redact(c, p.args); restores {
			rest = c.Restore(rest)
		}
	}
	e.count(result)
	return rest, err
}

// event is the last event of p with rest as its piece, and without what must not be
// said twice.
func (p *piece) event(rest []byte) (Event, error) {
	event := p.last
	if p.path == nil {
		event.Data = rest
		return event, nil
	}
	var doc any
	dec := json.NewDecoder(bytes.NewReader(p.last.Data))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		return event, fmt.Errorf("guard: an event cannot be read: %w", err)
	}
	var err error
	event.Data, err = marshal(remainder(doc, nil, p.path, string(rest)))
	return event, err
}

// remainder returns doc, which is at path, with rest at what follows, and of what is
// beside that only what tells where it belongs. A client joins the strings of an
// answer that comes in pieces, names of tools among them, so that none may come again.
func remainder(doc any, path, follows []string, rest string) any {
	if len(follows) == 0 {
		return rest
	}
	next := follows[0]
	within := append(slices.Clip(path), next)
	switch v := doc.(type) {
	case map[string]any:
		for name, item := range v {
			switch s := item.(type) {
			case string:
				if s != "" && !tellsWhere(name, path) {
					delete(v, name)
				}
			case []any, map[string]any:
				if name != next {
					delete(v, name)
				}
			}
		}
		v[next] = remainder(v[next], within, follows[1:], rest)
	case []any:
		for i, item := range v {
			if place(i, item) == next {
				return []any{remainder(item, within, follows[1:], rest)}
			}
		}
	}
	return doc
}

// tellsWhere reports whether the string called name, of the object at path, is one that
// each piece of a text has beside it.
func tellsWhere(name string, path []string) bool {
	switch {
	case len(path) == 0:
		return !isPiece(name, nil, Event{})
	case path[0] == "choices":
		return false
	}
	return name == "type" || name == "role"
}

// indexOf returns the number of the block that an event belongs to, or "".
func indexOf(root map[string]any) string {
	for _, name := range [...]string{"index", "output_index", "item_id"} {
		if v := root[name]; v != nil {
			return fmt.Sprint(v)
		}
	}
	return ""
}

// ended returns which texts an event of a kind ends: those of its block, or of the
// answers that it says are finished.
func ended(kind string, root map[string]any, index string) func(*piece) bool {
	for _, end := range [...]string{"_stop", ".done", ".completed", ".failed", ".incomplete", "message_delta"} {
		if strings.HasSuffix(kind, end) {
			return func(p *piece) bool { return index == "" || p.index == "" || p.index == index }
		}
	}
	finished := map[string]bool{}
	for _, list := range [...]string{"choices", "candidates"} {
		items, _ := root[list].([]any)
		for i, item := range items {
			m, _ := item.(map[string]any)
			if m["finish_reason"] != nil || m["finishReason"] != nil {
				finished[indexed(place(i, item))] = true
			}
		}
	}
	return func(p *piece) bool { return finished[p.choice] }
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func marshal(doc any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("guard: an event cannot be written: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
