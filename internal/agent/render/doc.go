// Package render makes texts that embed secrets: the values of variables and
// the contents of files.
//
// A [Template] comes from a reference ([Reference]) or from a Go template
// ([Parse]) with these functions:
//
//	secret "tamshai/databases#mongodb_password"   a field of a KV secret
//	lease "database/creds/mcp-hr"                 .Username, .Password, .Field "name"
//	lease "database/creds/mcp-hr#username"        one field of it
//	cert "pki/sign/mcp-hr" "mcp-hr" "localhost"   .Cert, .Key, .Chain, .CA: PEM
//	roots "pki-root"                              all authorities to trust, in PEM
//
// The arguments are literals, so that [Template.Needs] can tell what has to be
// declared before anything is fetched, also in branches that are not taken.
// The names of a certificate are DNS names and addresses, the first one is its
// common name; "ttl=24h" asks for a lifetime. .CA is what its own chain ends in:
// where peers are verified, use roots, which in a roll are the old and the new.
//
// A value can be printed, also by printf, and goes through urlpath (percent
// encoding, for what stands in front of a URL's @), urlquery, base64, json,
// html and js. It cannot be compared, cut or measured: templates see a
// placeholder, and the value takes its place in the finished text alone. So no
// value passes through text/template and fmt, which keep buffers, and no
// error of theirs can hold one.
//
// Rendering has two steps. [Template.Render] runs the template;
// [Output.AppendTo] writes the text with its values, where the caller wants it.
package render
