package bootstrap

// WithHandoverDir returns cfg for a host whose /run/phoenix is dir.
func (cfg Config) WithHandoverDir(dir string) Config {
	cfg.handoverDir = dir
	return cfg
}
