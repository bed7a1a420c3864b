package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/httpguard"
	"github.com/tamshai/phoenix/internal/yamlfile"
)

// maxPolicy is the longest policy file in bytes.
const maxPolicy = 16 << 20 // a directory of employees is in it

// policyFile is the policy of phoenix guard serve. Unknown and repeated keys
// are refused.
type policyFile struct {
	Threshold    float64                 `yaml:"threshold"`
	Entities     []string                `yaml:"entities"`
	Default      guard.Action            `yaml:"default"`
	Actions      map[string]guard.Action `yaml:"actions"`
	AllowDomains []string                `yaml:"allow_domains"`
	Names        map[string][]string     `yaml:"names"`
	Answers      string                  `yaml:"answers"`
	New          string                  `yaml:"new_in_answers"`
	Tags         []string                `yaml:"tags"`
	Prompts      map[string]string       `yaml:"prompts"`
	Delimiters   string                  `yaml:"delimiters"`
	AllowMedia   bool                    `yaml:"allow_media"`
}

const policySchema = `The policy file is YAML; each key may be left out, and no other is allowed:
   threshold      the lowest score that counts; 0.5
   entities       labels to look for; all. See phoenix guard entities
   default        what is done with a finding: pseudonymise, redact, mask, block,
                  audit; pseudonymise, which answers are restored from
   actions        the same by label: {IBAN_CODE: block}
   allow_domains  domains whose addresses are no findings: [tamshai.com]
   names          a dictionary by label: {PERSON: [Anna Kowalska]}
   prompts        files with the prompts that no answer may repeat, by name,
                  relative to the policy: {payroll: prompts/payroll.txt}
   tags           tags that are not for the user, besides the usual: [case_file]
   answers        what is done with whole answers that have such: block, redact;
                  block. Streams are stopped
   new_in_answers what is done with personal data in answers that no request of
                  the conversation had: redact, pass; redact. It holds for links
                  too, unless allow_domains or actions: {URL: audit} lets them be
   delimiters     session or turn: what users, tools and documents say is put
                  between delimiters that nobody can guess, the same for a
                  session or new for each turn; none
   allow_media    true lets images and documents through unread, in base64 or at an
                  address that the provider fetches; false`

// loadPolicy reads the policy file and what it names. An empty path is the
// empty policy.
func loadPolicy(path string) (httpguard.Config, error) {
	var file policyFile
	fail := func(format string, args ...any) (httpguard.Config, error) {
		text := strings.TrimPrefix(fmt.Sprintf(format, args...), "guard: ")
		return httpguard.Config{}, usagef("%s: %s", path, strings.NewReplacer(
			"the action hash needs a Key of 16 bytes or more", "the action hash needs a key, which a policy file has none of; use pseudonymise",
			"AllowDomains", "allow_domains", "Entities is empty", "entities is empty",
		).Replace(text))
	}
	if path != "" {
		if err := yamlfile.Read(path, maxPolicy, &file); err != nil {
			return fail("%v", err)
		}
	}
	if file.Default == "" {
		file.Default = guard.Pseudonymise
	}
	c := httpguard.Config{AllowMedia: file.AllowMedia}
	switch file.Answers {
	case "", "block":
	case "redact":
		c.Output.Redact = true
	default:
		return fail("answers: %q; use block or redact", file.Answers)
	}
	switch file.New {
	case "", "redact":
	case "pass":
		c.PassNew = true
	default:
		return fail("new_in_answers: %q; use redact or pass", file.New)
	}
	switch file.Delimiters {
	case "":
	case "session", "turn":
		c.Delimiters = guard.NewDelimiters(guard.DelimiterConfig{})
		c.PerTurn = file.Delimiters == "turn"
	default:
		return fail("delimiters: %q; use session or turn", file.Delimiters)
	}
	names, err := guard.NewDictionary(file.Names)
	if err != nil {
		return fail("%v", err)
	}
	known := slices.AppendSeq(labels(), maps.Keys(file.Names))
	if err := checkLabels(slices.Concat(file.Entities, slices.Sorted(maps.Keys(file.Actions))), known); err != nil {
		return fail("%v", err)
	}
	c.Guard, err = guard.New(guard.Policy{
		Threshold: file.Threshold, Entities: file.Entities, Default: file.Default, Actions: file.Actions,
		AllowDomains: file.AllowDomains, Names: names,
	})
	if err != nil {
		return fail("%v", err)
	}
	for _, tag := range file.Tags {
		if !strings.ContainsFunc(tag, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			return fail("tags: %q has no letter or digit, so that nothing would be found; write a name such as case_file", tag)
		}
	}
	c.Output.Tags, c.Output.Prompts = file.Tags, &guard.Prompts{}
	for _, name := range slices.Sorted(maps.Keys(file.Prompts)) {
		if err := registerPrompt(c.Output.Prompts, name, filepath.Join(filepath.Dir(path), file.Prompts[name])); err != nil {
			return fail("prompts: %v", err)
		}
	}
	return c, nil
}

// registerPrompt registers the prompt in a file.
func registerPrompt(prompts *guard.Prompts, name, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := prompts.Register(name, string(text), ""); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "guard: "))
	}
	return nil
}
