package guard

func isDigit(c byte) bool { return c-'0' < 10 }

func isLetter(c byte) bool { return (c|0x20)-'a' < 26 }

func isAlnum(c byte) bool { return isDigit(c) || isLetter(c) }

func isUpper(c byte) bool { return c-'A' < 26 }

func isLower(c byte) bool { return c-'a' < 26 }

func upper(c byte) byte {
	if isLower(c) {
		return c - 0x20
	}
	return c
}

func lower(c byte) byte {
	if isUpper(c) {
		return c + 0x20
	}
	return c
}
