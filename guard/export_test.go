package guard

// Steps returns how many bytes a scan of text looks at, each as often as it does.
func (p *Prompts) Steps(text []byte) int {
	_, steps := p.scan(text)
	return steps
}

// Steps returns how many bytes w looked at, each as often as it did.
func (w *OutputWriter) Steps() int { return w.steps }
