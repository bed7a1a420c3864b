#!/bin/sh
# Runs the example: real Vault, real PostgreSQL, and the three services behind their
# agents, without Docker. -stay leaves it running. It needs Go, node and npm, and what
# "make servers" builds.
set -eu
cd "$(dirname "$0")/../.."
exec go run ./examples/node/try "$@"
