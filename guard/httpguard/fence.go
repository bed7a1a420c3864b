package httpguard

import (
	"encoding/json"
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
func (f *fencer) rewrite(s shape, v any) error {
	top, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	switch s {
	case anthropic:
		if top["messages"] != nil {
			top["system"] = f.tell(top["system"])
			f.messages(top["messages"], "content")
		}
	case gemini:
		if top["contents"] != nil {
			name := "systemInstruction"
			if top["system_instruction"] != nil {
				name = "system_instruction"
			}
			system, _ := top[name].(map[string]any)
			if system == nil {
				system = map[string]any{}
			}
			parts, _ := system["parts"].([]any)
			system["parts"] = append(parts, map[string]any{"text": f.fence.Sentence()})
			top[name] = system
			f.messages(top["contents"], "parts")
		}
	default:
		if list, ok := top["messages"].([]any); ok {
			f.messages(list, "content")
			top["messages"] = append([]any{map[string]any{"role": "system", "content": f.fence.Sentence()}}, list...)
		}
		if top["input"] != nil && !f.embeds {
			top["instructions"] = f.tell(top["instructions"])
			if text, ok := top["input"].(string); ok {
				top["input"] = f.wrap("user_query", text)
			} else {
				f.messages(top["input"], "content")
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
		return append(system, map[string]any{"type": "text", "text": f.fence.Sentence()})
	}
	return f.fence.Sentence()
}

// messages wraps what those say that do not speak for the model or the system.
func (f *fencer) messages(v any, content string) {
	list, _ := v.([]any)
	for _, m := range list {
		m, ok := m.(map[string]any)
		if !ok {
			continue
		}
		if m["output"] != nil { // of a call, in OpenAI's list of items
			m["output"] = f.content("tool_result", m["output"])
		}
		if m["role"] == nil && m["type"] != nil && m["type"] != "message" || m[content] == nil {
			continue // an item that nobody says
		}
		switch m["role"] {
		case "assistant", "model", "system", "developer":
		case "tool", "function":
			m[content] = f.content("tool_result", m[content])
		default:
			m[content] = f.content("user_query", m[content])
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
			b, ok := block.(map[string]any)
			if !ok {
				continue
			}
			if text, ok := b["text"].(string); ok {
				b["text"] = f.wrap(kind, text)
			}
			if call, ok := b["functionResponse"].(map[string]any); ok && call["response"] != nil {
				call["response"] = map[string]any{"output": f.document("tool_result", call["response"])}
			}
			switch b["type"] {
			case "tool_result":
				b["content"] = f.content("tool_result", b["content"])
			case "document":
				if source, ok := b["source"].(map[string]any); ok && source["type"] == "text" {
					if text, ok := source["data"].(string); ok {
						source["data"] = f.wrap("document", text)
					}
				}
			}
		}
	}
	return v
}

// document wraps JSON as a text.
func (f *fencer) document(kind string, v any) string {
	doc, err := json.Marshal(v)
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
