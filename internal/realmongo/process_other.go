//go:build !linux

package realmongo

import (
	"os"
	"os/exec"
)

func prepare(*exec.Cmd) {}

func tempBase() string { return os.TempDir() }

func sweep(string) {}
