package mcpguard

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// harmless are methods and notifications without contents of users.
var harmless = map[string]bool{
	"initialize": true, "ping": true, "tools/list": true, "resources/list": true, "resources/templates/list": true, "prompts/list": true,
	"logging/setLevel": true, "roots/list": true, "server/discover": true, "subscriptions/listen": true,
	"notifications/initialized": true, "notifications/tools/list_changed": true, "notifications/prompts/list_changed": true,
	"notifications/resources/list_changed": true, "notifications/roots/list_changed": true, "notifications/elicitation/complete": true,
	"notifications/subscriptions/acknowledged": true,
}

// request returns the request as it may go on. The caller's own is not changed.
func (k *call) request(req mcp.Request) (mcp.Request, error) {
	switch p := req.GetParams().(type) {
	case *mcp.CallToolParamsRaw:
		c := *p
		k.resource = c.Name
		if c.InputResponses != nil {
			return nil, k.unknown("inputResponses")
		}
		var err error
		if c.Arguments, err = k.arguments(c.Arguments); err != nil {
			return nil, err
		}
		return withParams(req, &c)
	case *mcp.CallToolParams:
		c := *p
		k.resource = c.Name
		if c.InputResponses != nil {
			return nil, k.unknown("inputResponses")
		}
		if c.Arguments != nil {
			doc, err := json.Marshal(c.Arguments)
			if err != nil {
				return nil, err
			}
			if c.Arguments, err = k.arguments(doc); err != nil {
				return nil, err
			}
		}
		return withParams(req, &c)
	case *mcp.GetPromptParams:
		c := *p
		k.resource = c.Name
		if c.InputResponses != nil {
			return nil, k.unknown("inputResponses")
		}
		var err error
		if c.Arguments, err = k.argumentsByName(c.Arguments); err != nil {
			return nil, err
		}
		return withParams(req, &c)
	case *mcp.CompleteParams:
		c := *p
		var err error
		if c.Argument.Value, err = k.argument(c.Argument.Value); err != nil {
			return nil, err
		}
		if c.Context != nil {
			args, err := k.argumentsByName(c.Context.Arguments)
			if err != nil {
				return nil, err
			}
			c.Context = &mcp.CompleteContext{Arguments: args}
		}
		if c.Ref != nil {
			ref := *c.Ref
			ref.URI = k.restored(ref.URI)
			c.Ref = &ref
		}
		return withParams(req, &c)
	case *mcp.ReadResourceParams:
		if p.InputResponses != nil {
			return nil, k.unknown("inputResponses")
		}
		c := *p
		c.URI = k.restored(c.URI)
		return withParams(req, &c)
	case *mcp.SubscribeParams:
		c := *p
		c.URI = k.restored(c.URI)
		return withParams(req, &c)
	case *mcp.UnsubscribeParams:
		c := *p
		c.URI = k.restored(c.URI)
		return withParams(req, &c)
	}
	return k.notification(req)
}

// notification returns a notification, or what has no contents, as it may go on.
func (k *call) notification(req mcp.Request) (mcp.Request, error) {
	var err error
	switch p := req.GetParams().(type) {
	case *mcp.LoggingMessageParams: //nolint:staticcheck // deprecated, and sent for a year still
		c := *p
		doc, err := json.Marshal(c.Data)
		if err != nil {
			return nil, err
		}
		if c.Data, err = k.json(doc); err != nil {
			return nil, err
		}
		return withParams(req, &c)
	case *mcp.ProgressNotificationParams:
		c := *p
		if c.Message, err = k.text(c.Message); err != nil {
			return nil, err
		}
		return withParams(req, &c)
	case *mcp.CancelledParams:
		c := *p
		if c.Reason, err = k.text(c.Reason); err != nil {
			return nil, err
		}
		return withParams(req, &c)
	case *mcp.ResourceUpdatedNotificationParams:
		c := *p
		if c.URI, err = k.address(c.URI); err != nil {
			return nil, err
		}
		return withParams(req, &c)
	}
	if harmless[k.method] {
		return req, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrMethod, k.method)
}

// unknown is the error for a part of a request or a result that is not known here.
func (k *call) unknown(part string) error {
	return fmt.Errorf("%w: %s with %s", ErrMethod, k.method, part)
}

// withParams returns a copy of the request with other parameters.
func withParams[P mcp.Params](req mcp.Request, params P) (mcp.Request, error) {
	switch r := req.(type) {
	case *mcp.ServerRequest[P]:
		c := *r
		c.Params = params
		return &c, nil
	case *mcp.ClientRequest[P]:
		c := *r
		c.Params = params
		return &c, nil
	case *mcp.ClientRequest[mcp.Params]: // on a sending side
		c := *r
		c.Params = params
		return &c, nil
	case *mcp.ServerRequest[mcp.Params]:
		c := *r
		c.Params = params
		return &c, nil
	}
	return nil, fmt.Errorf("%w: a request of type %T", ErrMethod, req)
}

// arguments looks through what a model gives to a tool.
func (k *call) arguments(doc json.RawMessage) (json.RawMessage, error) {
	switch {
	case len(doc) == 0:
		return doc, nil
	case k.conv != nil:
		return k.conv.RestoreJSON(doc)
	}
	return k.json(doc)
}

func (k *call) argumentsByName(args map[string]string) (map[string]string, error) {
	args = maps.Clone(args)
	for name, value := range args {
		var err error
		if args[name], err = k.argument(value); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func (k *call) argument(text string) (string, error) {
	if k.conv != nil {
		return k.restored(text), nil
	}
	return k.text(text)
}

// restored is text with the values of the conversation's pseudonyms. Without a
// conversation it stays: a part of an address, say, has to be the one that it is.
func (k *call) restored(text string) string {
	if k.conv == nil {
		return text
	}
	return string(k.conv.Restore([]byte(text)))
}
