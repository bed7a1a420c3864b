package yamlfile

import (
	"fmt"
	"strings"
)

// Suggest returns `; did you mean "name"?` for the nearest of names, or lists
// them if none is near and they are few.
func Suggest(got string, names []string) string {
	best, distance := "", max(2, len(got)/3)+1
	for _, name := range names {
		if d := editDistance(got, name); d < distance {
			best, distance = name, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(names) > 0 && len(names) <= 12:
		return "; known are " + strings.Join(names, ", ")
	}
	return ""
}

// editDistance is the number of letters to insert, delete, replace or swap
// with their neighbour that makes b out of a.
func editDistance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
