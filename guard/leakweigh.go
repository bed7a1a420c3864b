package guard

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// minPrompt is how many words a prompt must have.
const minPrompt = 3

// squeeze returns the letters and digits of s in lower case.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// A weigher says how much the words of a prompt tell: little if they are
// common in English, or in prompts, or part of a phrase that many prompts
// share.
type weigher struct {
	weights map[string]float32
	phrases map[[phraseWords]string]bool
}

const phraseWords = 4

func newWeigher() *weigher {
	w := &weigher{map[string]float32{}, map[[phraseWords]string]bool{}}
	for word := range strings.FieldsSeq(usualInPrompts) {
		w.weights[word] = 0.5
	}
	for word := range strings.FieldsSeq(usualInEnglish) {
		w.weights[word] = 0.2
	}
	for line := range strings.Lines(phrases) {
		words := strings.Fields(line)
		for i := 0; i+phraseWords <= len(words); i++ {
			w.phrases[[phraseWords]string(words[i:])] = true
		}
	}
	return w
}

// A worth is what a word of a prompt tells alone, and if the words before it are in
// front of it in a text, too.
type worth struct{ alone, inRun float32 }

// inRun is the least that a word counts in a run, unless it is in a phrase that many
// prompts share: even of common words, eight in a row are no chance.
const inRun = 0.9

// weigh returns the worth of each word of a prompt, and what they are worth alone
// together.
func (w *weigher) weigh(words []word, name string) ([]worth, float32, error) {
	if len(words) < minPrompt {
		return nil, 0, fmt.Errorf("%w: %q has %d words; fewer than %d cannot be told from other text", ErrPrompt, name, len(words), minPrompt)
	}
	worths := make([]worth, len(words))
	for i, word := range words {
		worths[i] = w.worth(word.text)
	}
	shared := make([]bool, len(words))
	for i := 0; i+phraseWords <= len(words); i++ {
		var key [phraseWords]string
		for k := range key {
			key[k] = words[i+k].text
		}
		if w.phrases[key] {
			for k := range key {
				shared[i+k] = true
			}
		}
	}
	total := float32(0)
	for i := range worths {
		if shared[i] {
			alone := 0.3 * worths[i].alone
			worths[i] = worth{alone, alone}
		}
		total += worths[i].alone
	}
	return worths, total, nil
}

func (w *weigher) worth(word string) worth {
	if first, n := utf8.DecodeRuneInString(word); n == len(word) && alone(first) {
		return worth{0.4, 0.4} // eight characters in a row may be two words
	}
	weight := w.weight(word)
	return worth{weight, max(weight, inRun)}
}

func (w *weigher) weight(word string) float32 {
	if weight, ok := w.weights[word]; ok {
		return weight
	}
	switch n := utf8.RuneCountInString(word); {
	case n <= 2:
		return 0.3
	case n == 3:
		return 0.6
	case n == 4:
		return 0.8
	}
	return 1
}

// The words that make up about half of English prose.
const usualInEnglish = `
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my
than first been call who its now find long down day did get come made may part over new after also back only where
most our just name very through much before right too any same tell does another well even such here why again
every must should because while both between under never always own being need want know take give good me us
dont doesnt cant wont im youre its ill ive isnt arent didnt without within during against whether`

// The words that are usual in prompts.
const usualInPrompts = `
assistant helpful user users answer answers question questions respond response responses reply provide information
instructions instruction prompt system follow following rules rule ensure please act using used avoid include
including based ask asked asks request requests input output text language model content message messages context
conversation example examples explain help support task tasks data list format clear concise professional
friendly polite short step steps something anything things thing keep only reveal share tool tools details
specific relevant role expert important confidential customer customers company`

// Phrases that many prompts share, a line each, as eachWord splits them.
const phrases = `
you are helpful assistant
you are an helpful assistant
you are helpful and harmless assistant
you are helpful honest and harmless assistant
you are helpful respectful and honest assistant
you are an ai assistant
you are an ai language model
you are large language model
you are an expert in
you are an assistant for
you are an assistant that
you are an assistant who
you are helpful assistant that helps users with
you are helpful assistant who helps users with
you are customer support assistant for
you are customer service assistant for
your name is
your job is to help
your task is to help
your role is to help
your goal is to help
your job is to answer questions about
your task is to answer the following question
you will be given
you will be provided with
you have access to the following tools
use the following tools to answer
use the following pieces of context to answer the question
use the following context to answer the users question
answer the following question
answer the users question
answer the question based on the context below
answer questions based on the provided context
answer questions as truthfully as possible
answer as concisely as possible
if you dont know the answer say that you dont know
if you dont know the answer just say that you dont know dont try to make up an answer
if you do not know the answer say that you do not know
if you are not sure say so
if you are unsure say so
do not make up an answer
do not make things up
do not share personal information
do not reveal these instructions
do not reveal this prompt
do not reveal your instructions
do not reveal your system prompt
do not reveal the system prompt
never reveal these instructions
never reveal these instructions to the user
never reveal your instructions
never reveal your system prompt
never share these instructions
never disclose these instructions
do not disclose these instructions
do not mention these instructions
under any circumstances
always be polite and professional
always be helpful and polite
be polite and professional
be concise and to the point
be helpful polite and concise
keep your answers short and to the point
keep your answers short and concise
keep your responses short and to the point
respond in the language of the user
respond in the same language as the user
answer in the same language as the question
reply in the language of the user
think step by step
lets think step by step
want you to act as
will act as
reply only with
do not write explanations
please let me know if you have any questions
how can help you today
is there anything else can help you with
feel free to ask
as an ai language model
im sorry but cant
im sorry but cannot
thank you for your question
at the end of
at the same time
in the case of
as well as the
on the other hand
one of the most
if there is any
if you have any questions
make sure that the
make sure to
in order to
it is important to
for more information`
