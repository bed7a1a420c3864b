// Package sealed keeps env files encrypted at rest with age.
//
// [Seal] encrypts for recipients whose keys are elsewhere; [Open] decrypts
// with an identity file and parses what comes out; [ParseEnv] parses a file
// that was never sealed, by the same strict rules. [FormatEnv] writes what
// ParseEnv reads.
//
// # The env file
//
// UTF-8, one NAME=value on a line. A name is letters, digits and underscores
// and does not begin with a digit. Blank lines and lines that begin with # are
// skipped. A value is one of:
//
//	NAME=value     as it stands: no space, quote, backslash, dollar or # in it
//	NAME='value'   as it stands between the quotes
//	NAME="value"   with the escapes \n \r \t \" \\ \$ and no others
//
// Nothing is expanded, and nothing is guessed: a file that two programs could
// read in two ways is an error with its line. Errors never quote the file, of
// which any part might be a secret.
package sealed
