# The sensor. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Asked for once: the checkout may change while make runs.
ifndef REVISION
REVISION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
endif
OUT   := out
BIN   := $(OUT)/bin
TOOLS := $(OUT)/tools

# Go on the machine is used when there, otherwise the official image.
GO ?= $(if $(shell command -v go),go,docker run --rm -v $(CURDIR):/src -v honeysens-go:/go -w /src -e CGO_ENABLED -e GOARCH -e GOBIN golang:1.26 go)
# What is built has the time of its commit.
ifndef SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
endif
export SOURCE_DATE_EPOCH
LDFLAGS := -s -w -X honeysens.org/dockersensor/shared/version.Revision=$(REVISION)
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

CNI_PLUGINS := $(addprefix github.com/containernetworking/plugins/plugins/,main/bridge ipam/host-local)

GOLANGCI_VERSION := v2.6.1
GOLANGCI := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)
SOURCES := manager nethelper cni shared packaging

# Tests are told apart by their names: TestNetns has the kernel, TestEngine a Docker
# engine, TestE2E the lab, TestLab the lab for a long time, TestVM a virtual
# machine. The rest needs nothing.
SLOW := ^(TestNetns|TestEngine|TestE2E|TestLab|TestVM)
REQUIRE := packaging/lab/require.sh

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## all programs, into out/bin
	@mkdir -p $(BIN)/cni
	$(GOBUILD) -o $(BIN)/manager ./manager
	$(GOBUILD) -o $(BIN)/nethelper ./nethelper
	$(GOBUILD) -o $(BIN)/cni/ ./cni/offload $(CNI_PLUGINS)

.PHONY: test
test: ## everything but the virtual machine: formatting, linters, unit, netns and end-to-end tests
	@$(REQUIRE) test lab
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-unit
	@$(MAKE) --no-print-directory test-netns
	@$(MAKE) --no-print-directory test-e2e

.PHONY: test-unit
test-unit: ## unit tests with the race detector; no root needed
	@$(REQUIRE) unit
	$(GO) test -race -skip '$(SLOW)' ./...

.PHONY: test-netns
test-netns: build compose ## tests on the real kernel and a real Docker engine, in own namespaces; as root
	@$(REQUIRE) test lab
	$(GO) test -race -run '^(TestNetns|TestEngine)' ./...

.PHONY: test-e2e
test-e2e: ## the sensor deployed in the lab and attacked; as root
	@$(REQUIRE) test lab
	$(MAKE) --no-print-directory dist services
	$(GO) test -count=1 -timeout 40m -v -run '^TestE2E' ./packaging/lab/...

.PHONY: test-update
test-update: ## updates of all kinds in the lab; UPDATE_STRIKES=all for every strike at every state; as root, half an hour or two
	@$(REQUIRE) test lab
	$(MAKE) --no-print-directory dist services
	$(GO) test -count=1 -timeout 180m -v -run '^TestLabUpdate' ./packaging/lab/e2e

.PHONY: test-host
test-host: ## the sensor deployed on a stock Debian 13 virtual machine; as root, slow
	@$(REQUIRE) test lab host
	$(MAKE) --no-print-directory dist services
	packaging/lab/vm/build.sh $(OUT)/cache/vm
	$(GO) test -count=1 -timeout 120m -v -run '^TestVM' ./packaging/lab/vm

.PHONY: test-engine-newest
test-engine-newest: ## the sensor where the host's engine is the newest, with either of its firewalls: deployed, attacked, updated; as root, half an hour
	@$(REQUIRE) test lab
	$(MAKE) --no-print-directory dist services newest-engine
	$(WITH_NEWEST) $(GO) test -count=1 -v -run '^TestNetnsFirewalls$$' ./nethelper/internal/passage
	$(WITH_NEWEST) $(GO) test -count=1 -timeout 60m -v -run '^TestEngineLab|^TestE2E(|Guide|Profiles|Update)$$' -p 1 ./packaging/lab/host ./packaging/lab/e2e
	$(WITH_NEWEST) LAB_FIREWALL=nftables $(GO) test -count=1 -timeout 60m -v -run '^TestE2E(|Profiles)$$' ./packaging/lab/e2e
	$(WITH_NEWEST) $(GO) test -count=1 -timeout 30m -p 1 -run '^TestEngine' ./shared/enginetest ./manager/internal/images ./manager/internal/services ./packaging/image/runtime

.PHONY: test-bare
test-bare: ## demo and test of the last commit on a machine with only Debian's base system, git, make and Go; as root, slow
	@$(REQUIRE) lab
	packaging/lab/bare.sh $(OUT)/bare demo demo-down test

.PHONY: require
require:
	@$(REQUIRE) test lab

.PHONY: test-chaos
test-chaos: ## 50 kills of the engine or the manager in the middle of their work, alone and in the lab; as root, half an hour
	@$(REQUIRE) test lab
	$(MAKE) --no-print-directory dist services
	CHAOS_RUNS=50 $(GO) test -count=1 -timeout 30m -v -run '^TestEngineKills' ./manager/internal/services
	CHAOS_RUNS=50 $(GO) test -count=1 -timeout 60m -v -run '^TestLabChaos' ./packaging/lab/e2e

BENCH_RUNS ?= 5
.PHONY: bench
bench: build ## all benchmarks, BENCH_RUNS times (5); the table is out/bench.md
	@$(REQUIRE) test
	@$(GOBUILD) -o $(BIN)/bench ./packaging/bench
	$(GO) test -run '^$$' -bench . -benchtime 1s -count $(BENCH_RUNS) -p 1 -timeout 60m \
	  $$(grep -rl --include='*_test.go' '^func Benchmark' $(SOURCES) | xargs -n 1 dirname | sort -u | sed 's|^|./|') | $(BIN)/bench $(REVISION) $(OUT)/bench.md

FUZZTIME ?= 60s
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (60s)
	@for file in $$(grep -rl --include='*_test.go' '^func Fuzz' $(SOURCES)); do \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
	    echo "$$target in $$(dirname $$file)"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$(dirname $$file); \
	  done; \
	done

.PHONY: lint
lint: $(GOLANGCI) ## formatting and linters
	@unformatted=$$(gofmt -l $(SOURCES)); test -z "$$unformatted" || { echo "not formatted: $$unformatted" >&2; exit 1; }
	$(GOLANGCI) run --allow-parallel-runners ./...

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION)"
	@mkdir -p $(TOOLS)
	GOBIN=$(abspath $(TOOLS)) CGO_ENABLED=0 $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(TOOLS)/golangci-lint $@

.PHONY: demo
demo: ## a sensor, a server and an attacker on this machine; ends with the attacks that arrived
	@$(REQUIRE) lab
	@$(MAKE) --no-print-directory dist services
	@$(BIN)/lab demo $(ARCHIVE) $(RECON_ARCHIVE) $(HONEYPOT_ARCHIVE)

.PHONY: demo-page
demo-page: ## the page of the demo's server, at http://127.0.0.1:8080 until Ctrl-C
	@exec $(BIN)/lab page

.PHONY: demo-down
demo-down: ## take away all that the demo put up
	@$(GO) run ./packaging/lab down

.PHONY: clean
clean: ## remove what the build made, its images included
	@[ ! -d $(OUT)/lab ] || $(GO) run ./packaging/lab down
	@[ ! -d $(OUT)/dev ] || ! docker version >/dev/null 2>&1 || $(BIN)/dev --down
	@! docker version >/dev/null 2>&1 || docker images --quiet 'honeysens/*' | sort -u | xargs --no-run-if-empty docker image rm --force
	rm -rf $(OUT)

-include packaging/packaging.mk
