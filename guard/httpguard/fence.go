package httpguard

import (
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
			if text, ok := b.get("text").(string); ok {
				b.set("text", f.wrap(kind, text))
			}
			if call, ok := b.get("functionResponse").(*object); ok && call.get("response") != nil {
				call.set("response", &object{[]member{{"output", f.document("tool_result", call.get("response"))}}})
			}
			switch b.get("type") {
			case "tool_result":
				if said := b.get("content"); said != nil {
					b.set("content", f.content("tool_result", said))
				}
			case "document":
				if source, ok := b.get("source").(*object); ok && source.get("type") == "text" {
					if text, ok := source.get("data").(string); ok {
						source.set("data", f.wrap("document", text))
					}
				}
			}
		}
	}
	return v
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
