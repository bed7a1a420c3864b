package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/httpguard"
)

// What is said to the model and by it. The people and the numbers are made up.
const (
	modelPrompt = "You are Juniper, the payroll assistant of Tamshai. Never mention salary bands, even to administrators, and never say that there is an employee directory."
	question    = "Please confirm that 219-09-9999 is the SSN of Anna Kowalska."
	ssnOfOther  = "457-55-5462"
)

// aiGateway puts the guard between a program and a model that streams, in the
// way of phoenix guard serve, and lets the model misbehave.
func (s *stage) aiGateway(ctx context.Context) error {
	provider := &model{}
	address, stop, err := listen(provider)
	if err != nil {
		return err
	}
	defer stop()
	found := &counter{}
	gateway, err := guarded(found)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forbidigo // a copy
	defer transport.CloseIdleConnections()
	proxy, stopProxy, err := listen(gateway.Proxy(&url.URL{Scheme: "http", Host: address}, transport))
	if err != nil {
		return err
	}
	defer stopProxy()
	client := &http.Client{Transport: transport}

	s.say("the user asks          %q", question)
	text, stopped, err := chat(ctx, client, proxy)
	if err != nil {
		return err
	}
	got := provider.question()
	s.say("the model got          %q", got)
	s.say("the user gets          %q", text)
	if strings.Contains(got, "219-09-9999") || stopped || text != "Yes, 219-09-9999 is on file." {
		return errors.New("the number was not kept from the model, or was not put back")
	}

	pieces := []string{"Hers differs from that of Jan, 457", "-5", "5-54", "62, by the way."}
	provider.script(pieces...)
	if text, stopped, err = chat(ctx, client, proxy); err != nil {
		return err
	}
	s.say("the model streams      %q", pieces)
	s.say("the user gets          %q", text)
	if strings.Contains(text, ssnOfOther) || stopped || !strings.HasSuffix(text, ", by the way.") {
		return errors.New("a number that was cut across events came through")
	}

	provider.script(append([]string{"Gladly, my instructions are: "}, strings.SplitAfter(modelPrompt, " ")...)...)
	if text, stopped, err = chat(ctx, client, proxy); err != nil {
		return err
	}
	s.say("the model streams its whole prompt, a word in each event")
	s.say("the user gets          %q, and %s", text, s.paint(red, "the stream is stopped"))
	if !stopped || strings.Contains(text, "salary") {
		return errors.New("the prompt came through")
	}
	s.say("the audit log gets     %s", found)
	return nil
}

// guarded returns a gateway that records into found.
func guarded(found *counter) (*httpguard.Gateway, error) {
	g, err := guard.New(guard.Policy{Default: guard.Pseudonymise})
	if err != nil {
		return nil, err
	}
	var prompts guard.Prompts
	if err := prompts.Register("payroll", modelPrompt, ""); err != nil {
		return nil, err
	}
	return httpguard.New(httpguard.Config{Guard: g, Output: guard.OutputPolicy{Prompts: &prompts}, Audit: found})
}

// listen serves h on the loopback interface.
func listen(h http.Handler) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	return l.Addr().String(), func() {
		_ = server.Close()
		<-ended
	}, nil
}

// A model answers in Anthropic's shape: it says what it is told to, or repeats
// the number that it was asked about.
type model struct {
	mu    sync.Mutex
	asked string   // the last question
	say   []string // the pieces of the next answer; nil: repeat
}

func (m *model) script(pieces ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say = pieces
}

func (m *model) question() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Messages []struct{ Content string }
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Messages) == 0 {
		http.Error(w, "no message", http.StatusBadRequest)
		return
	}
	asked := in.Messages[0].Content
	m.mu.Lock()
	m.asked = asked
	pieces := m.say
	m.mu.Unlock()
	if pieces == nil {
		_, number, _ := strings.Cut(asked, "that ")
		number, _, _ = strings.Cut(number, " ")
		half := len(number) / 2
		pieces = []string{"Yes, " + number[:half], number[half:], " is on file."}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, piece := range pieces {
		data, err := json.Marshal(map[string]any{"type": "content_block_delta", "index": 0, "delta": map[string]string{"type": "text_delta", "text": piece}})
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "event: content_block_delta\ndata: %s\n\n", data); err != nil {
			return // the guard has hung up
		}
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = io.WriteString(w, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
}

// chat returns the text of an answer, and whether it was stopped.
func chat(ctx context.Context, client *http.Client, address string) (text string, stopped bool, err error) {
	body, err := json.Marshal(map[string]any{"stream": true, "messages": []any{map[string]string{"role": "user", "content": question}}})
	if err != nil {
		return "", false, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/messages", strings.NewReader(string(body)))
	if err != nil {
		return "", false, err
	}
	r.Header.Set(httpguard.SessionHeader, "anna")
	resp, err := client.Do(r)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", false, fmt.Errorf("the gateway answered %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var event struct {
			Type  string
			Delta struct{ Text string }
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return "", false, err
		}
		text += event.Delta.Text
		stopped = stopped || event.Type == "error"
	}
	return text, stopped, lines.Err()
}

// A counter records, as an audit log does, what the guard tells it.
type counter struct {
	mu    sync.Mutex
	kinds map[string]bool
}

func (c *counter) Append(_ context.Context, e auditlog.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds == nil {
		c.kinds = map[string]bool{}
	}
	for kind, n := range e.Attributes {
		c.kinds[fmt.Sprintf("%s %s %s=%s", e.Action, e.Outcome, kind, n)] = true
	}
	return nil
}

func (c *counter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(c.kinds)), ", ")
}
