# Needs Go, git, make and the package registries. "make" alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where built tools and servers are kept. The tests look there too.
export PHOENIX_CACHE ?= $(CURDIR)/.cache

# Nothing but "build" needs the commit in its binaries, and asking git for it
# fails in a clone that belongs to another user.
GOFLAGS_GIVEN := $(shell go env GOFLAGS)
export GOFLAGS := $(strip $(GOFLAGS_GIVEN) -buildvcs=false)

TEST_TIMEOUT  ?= 20m
BENCH         ?= .
BENCH_FLAGS   ?=
BENCH_TIMEOUT ?= 60m
FUZZTIME      ?= 20s
GOLANGCI      ?= v2.15.0

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run the main job on the Vault double, in seconds
	@go run ./cmd/phoenix demo

.PHONY: test
test: servers ## Run every check and test, against real Vault too
	@./scripts/test -timeout $(TEST_TIMEOUT)

.PHONY: bench
bench: servers ## Run the benchmarks (BENCH=regexp) and print the figures
	@go test -timeout $(BENCH_TIMEOUT) -count=1 ./test/bench/... -run '^$$' -bench '$(BENCH)' $(BENCH_FLAGS)
	@cd test/bench/spiffe && go test -timeout $(BENCH_TIMEOUT) -count=1 -run '^$$' -bench '$(BENCH)' -benchtime 1x
	@cd test/bench/guard && go test -timeout $(BENCH_TIMEOUT) -count=1 . -run '^$$' -bench '$(BENCH)' -benchtime 1x
	@cd test/bench/audit && go test -timeout $(BENCH_TIMEOUT) -count=1 . -run '^$$' -bench '$(BENCH)' -benchtime 1x

# runtimesecret erases what handled a secret; see SECURITY.md.
.PHONY: build
build: ## Build static binaries into bin/, with a tarball and checksums
	@mkdir -p bin
	@export GOFLAGS='$(GOFLAGS_GIVEN)' CGO_ENABLED=0 GOEXPERIMENT=runtimesecret; vcs=-buildvcs=auto; \
	git rev-parse -q --verify HEAD >/dev/null 2>&1 || vcs=-buildvcs=false; \
	set -x; go build $$vcs -trimpath -ldflags '-s -w' -o bin/ ./cmd/...
	@./scripts/pack

.PHONY: servers
servers: ## Build the test servers into .cache/bin where they are missing
	@./scripts/servers

.PHONY: lint
lint: ## Run golangci-lint, and check that go.mod is tidy
	go mod tidy -diff
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI) run

.PHONY: fuzz
fuzz: ## Run each fuzz test for a short while (FUZZTIME=20s)
	@./scripts/fuzz $(FUZZTIME)

.PHONY: crash
crash: ## Kill a writer of the audit log 1,000 times, and check what it acknowledged
	go test -count=1 -timeout 60m ./auditlog -run '^TestKill$$' -v -kills 1000

.PHONY: clean
clean: ## Remove bin/ and .cache/ (the test servers are built anew after this)
	rm -rf bin "$(PHOENIX_CACHE)"
