// Package guard finds and removes personal data and secrets in text on its way
// to and from a language model.
//
// [New] makes a [Guard] from a [Policy]. [Guard.Scan] lists findings;
// [Guard.Redact] replaces them, [Guard.RedactJSON] inside a JSON document;
// [Guard.NewWriter] does the same to a stream, and [Guard.Events] to server-sent
// events. A [Conversation] gives pseudonyms that stay the same from turn to turn
// and puts the values back into the model's answer and into the arguments that it
// gives to tools. [Entities] lists what is supported.
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
// to the original. Base64, base32, hex, binary digits, gzip and zlib in it are decoded,
// twice if need be, and read as well; so are rows of character codes and
// quoted-printable. Matchers are written by hand and look at a bounded number of
// bytes, so that the time is linear in the text whatever the text is.
//
// Cards, IBANs, social security numbers, telephone numbers and IPv4 addresses are read
// a second time, loosely: with anything between their groups that is not a word,
// cut by Markdown, HTML, string concatenation or the end of a line, and with O, I, l,
// S, B and Z for digits. A check digit, the lengths of the groups or a word in front
// has to bear such a reading out. Addresses may have their marks spelled, as in "alice
// at example dot com" and alice[at]example[.]com, or be cut by such things.
//
// What is out of reach: names of people and places other than those in a
// [Dictionary] that the caller supplies, paraphrase, and what is not listed above:
// rot13, reversed text, numbers spelled out in words, base85, uuencode and UTF-7, a
// number whose parts are in a list with other numbers, letters for digits in what has
// neither a check digit nor groups, and an address whose name is cut by a space or the
// end of a line.
package guard
