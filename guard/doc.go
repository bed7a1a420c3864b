// Package guard finds and removes personal data and secrets in text on its way
// to and from a language model.
//
// [New] makes a [Guard] from a [Policy]. [Guard.Scan] lists findings;
// [Guard.Redact] replaces them, [Guard.RedactJSON] inside a JSON document;
// [Guard.NewWriter] does the same to a stream, and [Guard.Events] to server-sent
// events. A [Conversation] gives pseudonyms that stay the same from turn to turn
// and puts the values back into the model's answer. [Entities] lists what is
// supported.
//
// [Prompts] recognises prompts in what a model writes, and
// [OutputPolicy.ScanOutput] reads an answer for these, internal tags and
// delimiters; both have a NewWriter for streams. [Delimiters] tell a model what
// is data. [InputPolicy] checks what users write.
//
// # How detection works
//
// Text is cut at hard breaks into zones, and no finding crosses a break (see
// zone.go). A zone without a trigger, such as a digit or an at sign, costs one
// pass over its bytes. Any other is read through a view: a form in which full-width
// digits, exotic dashes, invisible characters, look-alike letters, percent signs,
// HTML entities and backslash escapes are what they stand for, with offsets back
// to the original. Base64 and hex in it are decoded, twice if need be, and read
// as well. Matchers are written by hand and look at a bounded number of bytes,
// so that the time is linear in the text whatever the text is.
//
// What is out of reach: names of people and places other than those in a
// [Dictionary] that the caller supplies, paraphrase, and what is not listed above:
// rot13, reversed text, quoted-printable, numbers and marks spelled out in words
// ("alice at example dot com"), letters in the place of digits, and values that a
// line break, commas or bars cut where they have no separator.
package guard
