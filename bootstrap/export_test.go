package bootstrap

// WithHandoverDir returns cfg for a host whose /run/phoenix is dir.
func (cfg Config) WithHandoverDir(dir string) Config {
	cfg.handoverDir = dir
	return cfg
}

// ParseTicket reads what a ticket's file holds.
func ParseTicket(data []byte) (accessor string, err error) {
	t, err := parseTicket(data)
	if err != nil {
		return "", err
	}
	return t.accessor, nil
}
