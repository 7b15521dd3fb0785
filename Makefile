# The sensor. `make help` lists what there is.
SHELL    := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

REVISION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
OUT      := out
BIN      := $(OUT)/bin
TOOLS    := $(OUT)/tools
LDFLAGS  := -s -w -X honeysens.org/dockersensor/shared/version.Revision=$(REVISION)
GOBUILD  := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

GOLANGCI_VERSION := v2.6.1
GOLANGCI := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: lint
lint: $(GOLANGCI) ## formatting and linters
	@test -z "$$(gofmt -l manager nethelper cni shared packaging)" || { echo "not formatted:"; gofmt -l manager nethelper cni shared packaging; exit 1; }
	$(GOLANGCI) run ./...

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION)"
	@mkdir -p $(TOOLS)
	GOBIN=$(abspath $(TOOLS)) CGO_ENABLED=0 go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(TOOLS)/golangci-lint $@
