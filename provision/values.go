package provision

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/tamshai/phoenix/secrets"
)

// maxValue bounds a value from a file in bytes.
const maxValue = 512 << 10

// String says where the value comes from.
func (o Origin) String() string {
	switch {
	case o.Env != "":
		return "from env " + o.Env
	case o.File != "":
		return "from file " + o.File
	default:
		return fmt.Sprintf("generated, %d characters", o.Generate.Length)
	}
}

// value obtains an initial value. Errors name the origin and nothing of the
// value.
func (p *Plan) value(o Origin) (secrets.Secret, error) {
	var value []byte
	switch {
	case o.Env != "":
		text, _ := p.cfg.LookupEnv(o.Env)
		if text == "" {
			return secrets.Secret{}, fmt.Errorf("the environment variable %s is not set, or empty; set it", o.Env)
		}
		value = []byte(text)
	case o.File != "":
		data, err := p.Estate.readFile(o.File)
		if err != nil {
			return secrets.Secret{}, err
		}
		// Editors end a file with a line break that is no part of the value.
		if n := len(data); n > 0 && data[n-1] == '\n' {
			data = data[:n-1]
		}
		if len(data) == 0 {
			return secrets.Secret{}, fmt.Errorf("the file %s is empty", o.File)
		}
		value = data
	default:
		source := p.cfg.Rand
		if source == nil {
			source = rand.Reader
		}
		return o.Generate.draw(source)
	}
	if !utf8.Valid(value) {
		return secrets.Secret{}, fmt.Errorf("the value %s is not UTF-8, so that Vault would change it; encode it, in base64 for example", o)
	}
	return secrets.New(value), nil
}

// draw returns uniformly drawn characters: bytes beyond the last multiple of
// the alphabet's length are drawn again.
func (g *Generate) draw(source io.Reader) (secrets.Secret, error) {
	fair := 256 - 256%len(g.Alphabet)
	out, drawn := make([]byte, 0, g.Length), make([]byte, 64)
	for len(out) < g.Length {
		if _, err := io.ReadFull(source, drawn); err != nil {
			return secrets.Secret{}, fmt.Errorf("no random bytes: %w", err)
		}
		for _, b := range drawn {
			if int(b) < fair && len(out) < g.Length {
				out = append(out, g.Alphabet[int(b)%len(g.Alphabet)])
			}
		}
	}
	return secrets.New(out), nil
}

// readFile reads a file that the estate names.
func (e *Estate) readFile(name string) ([]byte, error) {
	path := e.FilePath(name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the file %s cannot be read: %w", name, errors.Unwrap(err))
	}
	if !info.Mode().IsRegular() || info.Size() > maxValue {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", name, maxValue)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the file %s cannot be read: %w", name, errors.Unwrap(err))
	}
	return data, nil
}

// digest tells public texts apart in a few characters.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
