package guard_test

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tamshai/phoenix/guard"
)

func ExampleGuard_Redact() {
	g, err := guard.New(guard.Policy{Actions: map[string]guard.Action{"CREDIT_CARD": guard.Mask}})
	if err != nil {
		panic(err)
	}
	out, result, err := g.Redact([]byte("SSN 219-09-9999, card 4111 1111 1111 1111"))
	fmt.Printf("%s\n%v %v\n", out, result.Counts, err)
	// Output:
	// SSN <US_SSN>, card **** **** **** 1111
	// map[CREDIT_CARD:1 US_SSN:1] <nil>
}

func ExampleGuard_Scan() {
	g, err := guard.New(guard.Policy{AllowDomains: []string{"tamshai.com"}})
	if err != nil {
		panic(err)
	}
	text := "From alice@tamshai.com to bob@example.org: call +44 20 7946 0958"
	for _, f := range g.Scan([]byte(text)) {
		fmt.Println(f.Label, text[f.Start:f.End], f.Score)
	}
	// Output:
	// EMAIL_ADDRESS bob@example.org 1
	// PHONE_NUMBER +44 20 7946 0958 0.95
}

// A bare number may be many things. Candidates lists them all, with low scores.
func ExampleGuard_Candidates() {
	g, err := guard.New(guard.Policy{Entities: []string{"ABA_ROUTING_NUMBER", "US_PASSPORT"}})
	if err != nil {
		panic(err)
	}
	for _, f := range g.Candidates([]byte("121000358"), 0) {
		fmt.Println(f.Label, f.Score)
	}
	// Output:
	// ABA_ROUTING_NUMBER 0.3
	// US_PASSPORT 0.05
}

// The card number is cut in two, and leaves in neither piece.
func ExampleGuard_NewWriter() {
	g, err := guard.New(guard.Policy{})
	if err != nil {
		panic(err)
	}
	w := g.NewWriter(os.Stdout)
	_, _ = io.WriteString(w, "Please charge 4111 1111 ")
	_, _ = io.WriteString(w, "1111 1111 today.\n")
	if err := w.Close(); err != nil {
		panic(err)
	}
	// Output: Please charge <CREDIT_CARD> today.
}

func ExampleGuard_RedactJSON() {
	g, err := guard.New(guard.Policy{})
	if err != nil {
		panic(err)
	}
	out, _, err := g.RedactJSON([]byte(`{"ssn": 219099999, "id": 104729385}`))
	fmt.Println(string(out), err)
	// Output: {"ssn": "<US_SSN>", "id": 104729385} <nil>
}

// The model never sees the address, and the user gets it back.
func ExampleConversation() {
	g, err := guard.New(guard.Policy{Default: guard.Pseudonymise})
	if err != nil {
		panic(err)
	}
	key := []byte("an example key, from crypto/rand") // one for all conversations
	c, err := g.NewConversation(key, "session-1")
	if err != nil {
		panic(err)
	}
	request, _, _ := c.Redact([]byte("Mail alice@tamshai.com"))
	answer := strings.Replace(string(request), "Mail", "I mailed", 1)
	fmt.Println(strings.Contains(answer, "alice"), string(c.Restore([]byte(answer))))
	// Output: false I mailed alice@tamshai.com
}

func ExampleGuard_Events() {
	g, err := guard.New(guard.Policy{})
	if err != nil {
		panic(err)
	}
	stream := `data: {"delta":{"text":"SSN 219-"}}

data: {"delta":{"text":"09-9999"}}

`
	for event, err := range g.Events(strings.NewReader(stream), guard.EventsConfig{}) {
		fmt.Println(string(event.Data), err)
	}
	// Output:
	// {"delta":{"text":""}} <nil>
	// {"delta":{"text":""}} <nil>
	// {"delta":{"text":"SSN <US_SSN>"}} <nil>
}

func ExampleNewDictionary() {
	names, err := guard.NewDictionary(map[string][]string{"PERSON": {"Marlene Dietrich"}})
	if err != nil {
		panic(err)
	}
	g, err := guard.New(guard.Policy{Names: names})
	if err != nil {
		panic(err)
	}
	out, _, _ := g.Redact([]byte("Ask Marlene Dietrich."))
	fmt.Println(string(out))
	// Output: Ask <PERSON>.
}

func ExampleEntities() {
	for _, e := range guard.Entities() {
		if e.Label == "US_SSN" {
			fmt.Println(e.Label, e.Score, e.WithContext, e.Checked)
		}
	}
	// Output: US_SSN 0.85 1 true
}
