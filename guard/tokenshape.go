package guard

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// The shapes of tokens, behind their prefix, that more than an alphabet and a
// length tell of.

// anthropicShape: a kind and two digits, 93 characters and AA, as keys have it
// since 2023; what has another length has to look random.
func anthropicShape(b []byte) bool {
	for _, kind := range [...]string{"api", "admin"} {
		if !bytes.HasPrefix(b, []byte(kind)) {
			continue
		}
		if len(b) == len(kind)+2+1+95 && bytes.HasSuffix(b, []byte("AA")) {
			return true
		}
		return !counted(b)
	}
	return true
}

// slackShape: numbers of a workspace and a user, and something random at the end.
func slackShape(b []byte) bool {
	last := b[bytes.LastIndexByte(b, '-')+1:]
	digits, letters := 0, 0
	for _, c := range last {
		switch {
		case isDigit(c):
			digits++
		case isLetter(c):
			letters++
		}
	}
	return len(last) >= 10 && digits > 0 && letters > 0
}

// sentryShape: JSON in base64, and 43 characters.
func sentryShape(b []byte) bool {
	return bytes.HasPrefix(b, []byte("eyJ")) && len(b)-bytes.LastIndexByte(b, '_')-1 == 43
}

// sourcegraphShape: 40 hex digits, behind "local" or the 16 of an instance.
func sourcegraphShape(b []byte) bool {
	if i := bytes.IndexByte(b, '_'); i >= 0 {
		if in := b[:i]; string(in) != "local" && !(len(in) == 16 && isHex(in)) {
			return false
		}
		b = b[i+1:]
	}
	return len(b) == 40 && isHex(b)
}

// azureShape: a client's secret has 37 to 40 characters, and "Q~" behind three of
// them and a digit.
func azureShape(b []byte) bool {
	return len(b) >= 37 && len(b) <= 40 && isDigit(b[3]) && b[4] == 'Q' && b[5] == '~' && !placeholder(b)
}

// discordShape: the number of a bot in base64, a time and a MAC.
func discordShape(b []byte) bool {
	if len(b) < 24+1+6+1+27 || len(b) > 28+1+6+1+38 || b[0] < 'M' || b[0] > 'O' {
		return false
	}
	id := bytes.IndexByte(b, '.')
	return id >= 24 && id <= 28 && len(b)-id >= 1+6+1+27 && b[id+7] == '.' && bytes.IndexByte(b[id+8:], '.') < 0 && isRandom(b[:id]) && isRandom(b[id+8:])
}

// mailchimpShape: 32 hex digits and the name of a data centre.
func mailchimpShape(b []byte) bool {
	return len(b) >= 36 && len(b) <= 37 && isHex(b[:32]) && string(b[32:35]) == "-us" && isNumber(b[35:], 1, 2)
}

// newRelicShape: the key of a licence is a region, 30 hex digits or more, and NRAL.
func newRelicShape(b []byte) bool {
	return len(b) == 40 && string(b[36:]) == "NRAL" && isHex(b[6:36]) && entropy(b[:36]) >= 2.5
}

// telegramShape: the number of a bot, a colon, an A and 34 characters.
func telegramShape(b []byte) bool {
	number, rest, ok := bytes.Cut(b, []byte(":"))
	return ok && len(number) >= 5 && len(number) <= 16 && isNumber(number, 0, len(number)) && len(rest) == 35 && rest[0] == 'A'
}

func isHex(b []byte) bool {
	for _, c := range b {
		if hexDigit(c) < 0 {
			return false
		}
	}
	return true
}

// counted reports whether most characters of b follow the one before in the
// alphabet or among the digits, as in what is typed to stand for a secret.
func counted(b []byte) bool {
	steps, size := 0, 0
	for i, c := range b {
		if !isAlnum(c) {
			continue
		}
		if size++; i > 0 && lower(c) == lower(b[i-1])+1 {
			steps++
		}
	}
	return steps*2 >= size
}

// takesTurns reports whether most characters of b follow the one before the last, as in
// a1b2c3, which is typed to stand for a secret, too.
func takesTurns(b []byte) bool {
	steps := 0
	for i := 2; i < len(b); i++ {
		if isAlnum(b[i]) && lower(b[i]) == lower(b[i-2])+1 {
			steps++
		}
	}
	return steps*2 >= len(b)
}

// published reports whether token is one that its vendor prints in a sample or an
// emulator for everybody to use. The table has the first eight bytes of the
// SHA-256 of each.
func published(token []byte) bool {
	sum := sha256.Sum256(token)
	return publishedTokens[binary.BigEndian.Uint64(sum[:8])]
}
