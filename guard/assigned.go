package guard

import (
	"math"
	"strings"
)

// keyBefore reports whether a name that ends before b[i], which is behind it,
// is that of a secret.
func keyBefore(b []byte, i int) bool {
	_, ok := keyName(b, i)
	return ok
}

// keyName returns the name of a secret that ends before b[i], quotes and white
// space apart.
func keyName(b []byte, i int) (name []byte, ok bool) {
	end := i
	for end > 0 && i-end < 4 && strings.IndexByte("\"' \\`])?+|:", b[end-1]) >= 0 {
		end--
	}
	start := end
	for start > 0 && end-start < 64 && (isAlnum(b[start-1]) || b[start-1] == '_' || b[start-1] == '-' || b[start-1] == '.') {
		start--
	}
	name = b[start:end]
	if len(name) < 3 {
		return nil, false
	}
	for i := range name {
		if secretWord(name, i) {
			return name, true
		}
	}
	return nil, false
}

// secretWord reports whether a word that names secrets begins at name[i].
func secretWord(name []byte, i int) bool {
	has := func(word string) bool {
		if len(name)-i < len(word) {
			return false
		}
		for k := range len(word) {
			if lower(name[i+k]) != word[k] {
				return false
			}
		}
		return true
	}
	switch lower(name[i]) {
	case 'p':
		return has("pass") || has("pwd")
	case 's':
		return has("secret")
	case 't':
		return has("token")
	case 'c':
		return has("cred") || has("client_id") || has("clientid")
	case 'b':
		return has("bearer")
	case 'a':
		return has("auth") && !has("author")
	case 'k':
		return has("key") && (i+3 == len(name) || i == 0 && len(name) == 3)
	}
	return false
}

// assigned reads a secret that is assigned at t[i], as in `api_key = "…"` and
// "password: …".
func (l *level) assigned(i int) {
	t := l.t
	name, ok := keyName(t, i)
	if !ok {
		return
	}
	start := i + 1
	for start < len(t) && start-i < 12 && strings.IndexByte("=:> \"'`\\({[\n\t", t[start]) >= 0 {
		start++
	}
	end := start
	quoted := start > 0 && (t[start-1] == '"' || t[start-1] == '\'' || t[start-1] == '`')
	for end < len(t) && end-start < maxURL && t[end] > ' ' && strings.IndexByte("\"'`<>", t[end]) < 0 && (quoted || strings.IndexByte(",;)}]", t[end]) < 0) {
		end++
	}
	for end > start && !quoted && strings.IndexByte(".:!?\\", t[end-1]) >= 0 {
		end--
	}
	value := t[start:end]
	if score := secretScore(name, value); score > 0 {
		l.add(l.zone.det.secret, start, end, score)
	}
}

// secretScore says how sure it is that value is the secret that name tells of.
func secretScore(name, value []byte) float32 {
	n := strings.ToLower(string(name))
	password := strings.Contains(n, "pass") || strings.Contains(n, "pwd")
	if len(value) < 8 && !(password && len(value) >= 6) || placeholder(value) {
		return 0
	}
	digits, letters, others := 0, 0, 0
	for _, c := range value {
		switch {
		case isDigit(c):
			digits++
		case isLetter(c):
			letters++
		default:
			others++
		}
	}
	bits := entropy(value)
	switch {
	case password && digits > 0 && letters > 0, password && others > 0 && letters > 0 && bits > 2.5:
		return 0.75
	case password:
		return 0.4
	case len(value) >= 12 && digits > 0 && letters > 0 && bits >= 3 && others*3 < len(value):
		return 0.7
	case len(value) >= 20 && bits >= 3.7 && others*4 < len(value):
		return 0.55
	}
	return 0
}

// entropy is Shannon's, in bits for a byte.
func entropy(b []byte) float64 {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(b))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// placeholder reports whether value stands for a secret and is none.
func placeholder(value []byte) bool {
	if len(value) == 0 {
		return true
	}
	if sameDigits(value) {
		return true
	}
	switch value[0] {
	case '$', '<', '{', '%', '[', '(', '*':
		return true
	}
	var low [64]byte
	n := 0
	for _, c := range value[:min(len(value), len(low))] {
		low[n] = lower(c)
		n++
	}
	s := string(low[:n])
	for _, word := range [...]string{"example", "your", "xxxx", "placeholder", "changeme", "redacted", "dummy", "${", "{{", "process.env", "os.environ", "getenv", "****", "....", "null", "undefined", "1234567890", "abcdefgh"} {
		if strings.Contains(s, word) {
			return true
		}
	}
	return false
}
