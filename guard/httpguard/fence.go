package httpguard

import (
	"encoding/base64"
	"errors"

	"github.com/tamshai/phoenix/guard"
)

// fencer puts what users, tools and documents say between delimiters, and tells
// the model of them in the system prompt.
type fencer struct {
	fence  guard.Fence
	embeds bool // the input is for a search, and no model reads it
	err    error
}

// fence rewrites a request in the shape s, and fails if a text contains a
// delimiter.
func (f *fencer) rewrite(s shape, top *object) error {
	switch s {
	case anthropic:
		if top.get("messages") != nil {
			top.set("system", f.tell(top.get("system")))
			f.messages(top.get("messages"), "content")
		}
	case gemini:
		if top.get("contents") != nil {
			name := "systemInstruction"
			if top.get("system_instruction") != nil {
				name = "system_instruction"
			}
			system, _ := top.get(name).(*object)
			if system == nil {
				system = &object{}
			}
			parts, _ := system.get("parts").([]any)
			system.set("parts", append(parts, &object{[]member{{"text", f.fence.Sentence()}}}))
			top.set(name, system)
			f.messages(top.get("contents"), "parts")
		}
	default:
		if list, ok := top.get("messages").([]any); ok {
			f.messages(list, "content")
			top.set("messages", append([]any{&object{[]member{{"role", "system"}, {"content", f.fence.Sentence()}}}}, list...))
		}
		if prompt := top.get("prompt"); isSaid(prompt) && top.get("messages") == nil && top.get("input") == nil {
			return refuse(400, "a prompt that is one text has no place for delimiters, which the policy wants; send messages")
		}
		if top.get("input") != nil && !f.embeds {
			top.set("instructions", f.tell(top.get("instructions")))
			if text, ok := top.get("input").(string); ok {
				top.set("input", f.wrap("user_query", text))
			} else {
				f.messages(top.get("input"), "content")
			}
		}
	}
	return f.err
}

// isSaid reports whether v is a text or a list of such.
func isSaid(v any) bool {
	switch v.(type) {
	case string, []any:
		return true
	}
	return false
}

// tell returns a system prompt, a text or a list of blocks, with the sentence on
// the delimiters at its end.
func (f *fencer) tell(system any) any {
	switch system := system.(type) {
	case string:
		return system + "\n\n" + f.fence.Sentence()
	case []any:
		return append(system, &object{[]member{{"type", "text"}, {"text", f.fence.Sentence()}}})
	}
	return f.fence.Sentence()
}

// messages wraps what those say that do not speak for the model or the system.
func (f *fencer) messages(v any, content string) {
	list, _ := v.([]any)
	for _, m := range list {
		m, ok := m.(*object)
		if !ok {
			continue
		}
		if output := m.get("output"); output != nil { // of a call, in OpenAI's list of items
			m.set("output", f.content("tool_result", output))
		}
		role, kind, said := m.get("role"), m.get("type"), m.get(content)
		if role == nil && kind != nil && kind != "message" || said == nil {
			continue // an item that nobody says
		}
		switch role {
		case "assistant", "model", "system", "developer":
		case "tool", "function":
			m.set(content, f.content("tool_result", said))
		default:
			m.set(content, f.content("user_query", said))
		}
	}
}

// content wraps a text or each text in a list of blocks.
func (f *fencer) content(kind string, v any) any {
	switch v := v.(type) {
	case string:
		return f.wrap(kind, v)
	case []any:
		for _, block := range v {
			b, ok := block.(*object)
			if !ok {
				continue
			}
			f.block(kind, b)
		}
	}
	return v
}

// block wraps what a block of a content says.
func (f *fencer) block(kind string, b *object) {
	switch b.get("type") {
	case "tool_result":
		kind = "tool_result"
	case "document", "search_result":
		kind = "document"
	}
	for _, name := range []string{"text", "stdout", "stderr"} {
		if text, ok := b.get(name).(string); ok {
			b.set(name, f.wrap(kind, text))
		}
	}
	for _, name := range []string{"functionResponse", "function_response"} {
		if call, ok := b.get(name).(*object); ok && call.get("response") != nil {
			call.set("response", &object{[]member{{"output", f.document("tool_result", call.get("response"))}}})
		}
	}
	for _, name := range []string{"source", "inlineData", "inline_data"} {
		if file, ok := b.get(name).(*object); ok {
			f.file(file)
		}
	}
	if said := b.get("content"); said != nil {
		b.set("content", f.content(kind, said))
	}
}

// file wraps a document.
func (f *fencer) file(source *object) {
	if said := source.get("content"); said != nil {
		source.set("content", f.content("document", said))
	}
	data, ok := source.get("data").(string)
	switch _, kind := fileIn(source); {
	case !ok:
	case source.get("type") == "text":
		source.set("data", f.wrap("document", data))
	case isTextType(kind):
		text, _ := base64.StdEncoding.DecodeString(data) // as the rewriter has written it
		source.set("data", base64.StdEncoding.EncodeToString([]byte(f.wrap("document", string(text)))))
	}
}

// document wraps JSON as a text.
func (f *fencer) document(kind string, v any) string {
	doc, err := encode(nil, v)
	if err != nil && f.err == nil {
		f.err = err
	}
	return f.wrap(kind, string(doc))
}

func (f *fencer) wrap(kind, text string) string {
	wrapped, err := f.fence.Wrap(kind, text)
	if err != nil && f.err == nil {
		f.err = err
		if errors.Is(err, guard.ErrDelimiter) {
			f.err = refuse(403, "the request was blocked, because a %s contains a delimiter", kind)
		}
	}
	return wrapped
}
