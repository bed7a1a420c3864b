package doctor

// Grants returns the capabilities that policies give at a path.
func Grants(policies []string, path string) ([]string, error) {
	all := acl{}
	for _, text := range policies {
		one, err := parsePolicy(text)
		if err != nil {
			return nil, err
		}
		for path, g := range one {
			all.add(path, g)
		}
	}
	return all.at(path).capabilities, nil
}
