package mcpguard

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// result returns the result as it may go on.
func (k *call) result(result mcp.Result) (mcp.Result, error) {
	switch r := result.(type) {
	case *mcp.CallToolResult:
		c := *r
		if c.InputRequests != nil {
			return nil, k.unknown("inputRequests")
		}
		var err error
		if c.Content, err = k.contents(c.Content); err != nil {
			return nil, err
		}
		if c.StructuredContent != nil {
			doc, err := json.Marshal(c.StructuredContent)
			if err != nil {
				return nil, err
			}
			clean, err := k.json(doc)
			if err != nil {
				return nil, err
			}
			c.StructuredContent = clean
		}
		return &c, nil
	case *mcp.ReadResourceResult:
		c := *r
		if c.InputRequests != nil {
			return nil, k.unknown("inputRequests")
		}
		var err error
		c.Contents, err = each(c.Contents, k.resourceContents)
		return &c, err
	case *mcp.GetPromptResult:
		c := *r
		if c.InputRequests != nil {
			return nil, k.unknown("inputRequests")
		}
		var err error
		if c.Description, err = k.text(c.Description); err != nil {
			return nil, err
		}
		c.Messages, err = each(c.Messages, func(m *mcp.PromptMessage) (*mcp.PromptMessage, error) {
			c := *m
			c.Content, err = k.content(c.Content)
			return &c, err
		})
		return &c, err
	case *mcp.CompleteResult:
		c := *r
		c.Completion.Values = slices.Clone(c.Completion.Values)
		for i := range c.Completion.Values {
			if err := k.texts(&c.Completion.Values[i]); err != nil {
				return nil, err
			}
		}
		return &c, nil
	case nil:
		return nil, nil
	}
	return k.list(result)
}

// list returns a list, or what a server says of itself, as it may go on: without
// values, and with the names that calls need.
func (k *call) list(result mcp.Result) (mcp.Result, error) {
	var err error
	switch r := result.(type) {
	case *mcp.ListResourcesResult:
		c := *r
		c.Resources, err = each(c.Resources, func(r *mcp.Resource) (*mcp.Resource, error) {
			c := *r
			if c.URI, err = k.address(c.URI); err != nil {
				return nil, err
			}
			return &c, k.texts(&c.Name, &c.Title, &c.Description)
		})
		return &c, err
	case *mcp.ListResourceTemplatesResult:
		c := *r
		c.ResourceTemplates, err = each(c.ResourceTemplates, func(t *mcp.ResourceTemplate) (*mcp.ResourceTemplate, error) {
			c := *t
			return &c, k.texts(&c.Name, &c.Title, &c.Description)
		})
		return &c, err
	case *mcp.ListPromptsResult:
		c := *r
		c.Prompts, err = each(c.Prompts, func(p *mcp.Prompt) (*mcp.Prompt, error) {
			c := *p
			c.Arguments, err = each(c.Arguments, func(a *mcp.PromptArgument) (*mcp.PromptArgument, error) {
				c := *a
				return &c, k.texts(&c.Title, &c.Description)
			})
			if err != nil {
				return nil, err
			}
			return &c, k.texts(&c.Title, &c.Description)
		})
		return &c, err
	case *mcp.ListToolsResult:
		c := *r
		c.Tools, err = each(c.Tools, func(t *mcp.Tool) (*mcp.Tool, error) {
			c := *t
			if c.Annotations != nil {
				a := *c.Annotations
				c.Annotations = &a
				if err := k.texts(&a.Title); err != nil {
					return nil, err
				}
			}
			return &c, k.texts(&c.Title, &c.Description)
		})
		return &c, err
	case *mcp.ListRootsResult: //nolint:staticcheck // deprecated, and sent for a year still
		c := *r
		c.Roots, err = each(c.Roots, func(r *mcp.Root) (*mcp.Root, error) { //nolint:staticcheck // the same
			c := *r
			if c.URI, err = k.address(c.URI); err != nil {
				return nil, err
			}
			return &c, k.texts(&c.Name)
		})
		return &c, err
	case *mcp.InitializeResult:
		c := *r
		return &c, k.texts(&c.Instructions)
	case *mcp.DiscoverResult:
		c := *r
		return &c, k.texts(&c.Instructions)
	}
	return result, nil // of a method without contents
}

// each returns a list with what f makes of its items; nil ones stay.
func each[T any](list []*T, f func(*T) (*T, error)) ([]*T, error) {
	list = slices.Clone(list)
	for i, item := range list {
		if item == nil {
			continue
		}
		var err error
		if list[i], err = f(item); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (k *call) contents(list []mcp.Content) ([]mcp.Content, error) {
	out := slices.Clone(list)
	for i, content := range list {
		var err error
		if out[i], err = k.content(content); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (k *call) content(content mcp.Content) (mcp.Content, error) {
	switch v := content.(type) {
	case nil:
		return nil, nil
	case *mcp.TextContent:
		c := *v
		var err error
		c.Text, err = k.text(c.Text)
		return &c, err
	case *mcp.EmbeddedResource:
		c := *v
		var err error
		c.Resource, err = k.resourceContents(c.Resource)
		return &c, err
	case *mcp.ResourceLink:
		c := *v
		var err error
		if c.URI, err = k.address(c.URI); err != nil {
			return nil, err
		}
		return &c, k.texts(&c.Name, &c.Title, &c.Description)
	case *mcp.ImageContent:
		return k.media(v, v.MIMEType), nil
	case *mcp.AudioContent:
		return k.media(v, v.MIMEType), nil
	}
	return nil, fmt.Errorf("%w: content of type %T", ErrMethod, content)
}

func (k *call) media(v mcp.Content, kind string) mcp.Content {
	if k.config.AllowMedia {
		return v
	}
	k.counts["media"]++
	return &mcp.TextContent{Text: "[content of type " + strconv.Quote(kind) + " was removed, because it cannot be looked through]"}
}

func (k *call) resourceContents(r *mcp.ResourceContents) (*mcp.ResourceContents, error) {
	if r == nil {
		return nil, nil
	}
	c := *r
	var err error
	if c.URI, err = k.address(c.URI); err != nil {
		return nil, err
	}
	if c.Text, err = k.text(c.Text); err != nil {
		return nil, err
	}
	switch {
	case c.Blob == nil:
	case isTextType(c.MIMEType) && utf8.Valid(c.Blob):
		text, err := k.text(string(c.Blob))
		if err != nil {
			return nil, err
		}
		c.Blob = []byte(text)
	case !k.config.AllowMedia:
		k.counts["media"]++
		c.Blob, c.Text = nil, "[content was removed, because it cannot be looked through]"
	}
	return &c, nil
}

func isTextType(kind string) bool {
	return strings.HasPrefix(kind, "text/") || strings.HasPrefix(kind, "application/json")
}
