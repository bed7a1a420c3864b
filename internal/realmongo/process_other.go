//go:build !linux

package realmongo

import "os/exec"

func prepare(*exec.Cmd) {}
