package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/tamshai/phoenix/secrets"
)

// maxSealed bounds a sealed file in bytes: MaxSize in armor, and the header.
const maxSealed = 2 * MaxSize

// maxIdentity bounds an identity file in bytes.
const maxIdentity = 64 << 10

var (
	// ErrNotSealed is data that is not an age file, or a damaged one.
	ErrNotSealed = errors.New("not an age file, or a damaged one")
	// ErrNoMatch is a file that was sealed for other identities.
	ErrNoMatch = errors.New("sealed for another identity")
	// ErrRecipient is a recipient or an identity that cannot be used.
	ErrRecipient = errors.New("not an age key")
)

// Seal encrypts plain for every one of recipients, of which there must be at
// least one: "age1…" (X25519) or "age1pq1…" (post-quantum, not to be mixed
// with the first kind). The result is armored text.
func Seal(plain []byte, recipients []string) ([]byte, error) {
	if len(plain) > MaxSize {
		return nil, fmt.Errorf("sealed: %w", ErrTooLarge)
	}
	if len(recipients) == 0 {
		return nil, fmt.Errorf("sealed: %w: no recipient is given", ErrRecipient)
	}
	var to []age.Recipient
	for i, text := range recipients {
		if strings.HasPrefix(text, "AGE-SECRET-KEY-") {
			return nil, fmt.Errorf("sealed: %w: recipient %d is a secret key; give its public half (age-keygen -y), and take the key for published", ErrRecipient, i+1)
		}
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(parsed) != 1 {
			return nil, fmt.Errorf("sealed: %w: recipient %d does not begin with age1 or is mistyped", ErrRecipient, i+1)
		}
		to = append(to, parsed[0])
	}
	var out bytes.Buffer
	text := armor.NewWriter(&out)
	w, err := age.Encrypt(text, to...)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = errors.Join(w.Close(), text.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts data, armored or not, with the identities in identityFile (as
// age-keygen writes it) and parses the env file in it. Errors: ErrNotSealed,
// ErrNoMatch, ErrRecipient, ErrSyntax, ErrTooLarge, and those of reading
// identityFile.
func Open(data []byte, identityFile string) (map[string]secrets.Secret, error) {
	identities, err := readIdentities(identityFile)
	if err != nil {
		return nil, err
	}
	if len(data) > maxSealed {
		return nil, fmt.Errorf("sealed: %w", ErrTooLarge)
	}
	var in io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte(armor.Header)) {
		in = armor.NewReader(in)
	}
	out, err := age.Decrypt(in, identities...)
	var mismatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &mismatch):
		return nil, fmt.Errorf("sealed: %w; name one of its recipients' identity files instead of %s", ErrNoMatch, identityFile)
	case err != nil:
		return nil, fmt.Errorf("sealed: %w", ErrNotSealed)
	}
	plain, err := io.ReadAll(io.LimitReader(out, MaxSize+1))
	defer func() { clear(plain) }()
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", ErrNotSealed)
	}
	return ParseEnv(plain)
}

func readIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("sealed: identity: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("sealed: %w: %s is not a regular file", ErrRecipient, path)
	}
	// age's own error would quote the line, which is the key.
	identities, err := age.ParseIdentities(io.LimitReader(f, maxIdentity))
	if err != nil {
		return nil, fmt.Errorf("sealed: %w: %s is not an identity file; make one with age-keygen", ErrRecipient, path)
	}
	return identities, nil
}
