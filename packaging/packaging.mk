# Image, deployable archive and lab. Included by the top makefile.

# Megabytes that the image may have, unpacked: `make dist` says what takes them.
IMAGE_LIMIT     := 345
IMAGE           := honeysens/sensorx86:$(REVISION)
CONTEXT         := $(OUT)/image
CACHE           := $(OUT)/cache
DIST            := $(OUT)/dist
ARCHIVE         := $(DIST)/HoneySens-Firmware-dockerx86-$(REVISION).tar.gz
COMPOSE_VERSION := v5.6.0
COMPOSE_MODULE  := github.com/docker/compose/v5
COMPOSE         := $(BIN)/docker-compose

# An engine: the one that the machine has, or a private one without a network
# that ends with the command.
WITH_ENGINE = $$(docker version >/dev/null 2>&1 || echo $(BIN)/lab --dir $(CACHE)/engine --runtime $(BIN)/runcshim with-engine)

.PHONY: compose
compose: $(COMPOSE)

$(COMPOSE): $(TOOLS)/docker-compose-$(COMPOSE_VERSION)
	@mkdir -p $(@D)
	cp $< $@

# Compose refuses `go install`; its module builds where the module cache keeps it.
$(TOOLS)/docker-compose-$(COMPOSE_VERSION):
	@echo "building Docker Compose $(COMPOSE_VERSION) (a minute)"
	@mkdir -p $(@D)
	source=$$($(GO) mod download -json $(COMPOSE_MODULE)@$(COMPOSE_VERSION) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
	CGO_ENABLED=0 $(GO) build -C "$$source" -trimpath -buildvcs=false -o $(abspath $@) \
	  -ldflags '-s -w -X $(COMPOSE_MODULE)/internal.Version=$(COMPOSE_VERSION)' ./cmd

# The newest Docker Engine with its containerd and runc, for the lab's sensor host.
# Its module is numbered apart from its releases: this one is of the time of 29.8.
ENGINE_VERSION     := v2.0.0-beta.24
ENGINE_RELEASE     := 29.8
ENGINE_MODULE      := github.com/moby/moby/v2
CONTAINERD_VERSION := v2.4.2
CONTAINERD_MODULE  := github.com/containerd/containerd/v2
RUNC_VERSION       := v1.5.2
RUNC_MODULE        := github.com/opencontainers/runc
NEWEST             := $(TOOLS)/engine-$(ENGINE_VERSION)-containerd-$(CONTAINERD_VERSION)-runc-$(RUNC_VERSION)

WITH_NEWEST        := PATH=$(abspath $(NEWEST)):$$PATH

.PHONY: newest-engine
newest-engine: $(NEWEST)/dockerd

# The tags leave out what needs further libraries in C. dockerd comes last: it
# stands for all.
$(NEWEST)/dockerd:
	@packaging/lab/require.sh newest
	@echo "building runc $(RUNC_VERSION), containerd $(CONTAINERD_VERSION) and Docker Engine $(ENGINE_VERSION) (some minutes)"
	@mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) CGO_ENABLED=1 $(GO) install -trimpath -tags seccomp,urfave_cli_no_docs -ldflags '-s -w' $(RUNC_MODULE)@$(RUNC_VERSION)
	GOBIN=$(abspath $(@D)) CGO_ENABLED=0 $(GO) install -trimpath -tags no_btrfs -ldflags '-s -w' \
	  $(addprefix $(CONTAINERD_MODULE)/cmd/,$(addsuffix @$(CONTAINERD_VERSION),containerd containerd-shim-runc-v2))
	GOBIN=$(abspath $(@D)) CGO_ENABLED=0 $(GO) install -trimpath -tags exclude_graphdriver_btrfs \
	  -ldflags '-s -w -X $(ENGINE_MODULE)/dockerversion.Version=$(ENGINE_RELEASE).0-$(ENGINE_VERSION)' \
	  $(addprefix $(ENGINE_MODULE)/cmd/,$(addsuffix @$(ENGINE_VERSION),docker-proxy dockerd))

.PHONY: lab-programs
lab-programs: $(COMPOSE)
	$(GOBUILD) -o $(BIN)/ ./packaging/lab ./packaging/lab/host/runcshim ./packaging/lab/server

# The pause program wants a C compiler; Go's official image holds one, too.
BUILD_PAUSE = $(if $(shell command -v cc),,docker run --rm -v $(CURDIR):/src -w /src golang:1.26) packaging/image/pause/build.sh

.PHONY: sensor-programs
sensor-programs: build $(COMPOSE)
	$(GOBUILD) -o $(BIN)/ ./packaging/image/init ./packaging/image/runtime ./packaging/image/sbom
	$(BUILD_PAUSE) $(BIN)/pause

# Everything that the image holds above its packages, in its place.
.PHONY: image-context
image-context: sensor-programs
	@rm -rf $(CONTEXT)
	@mkdir -p $(CONTEXT)
	cp -r packaging/image/Dockerfile packaging/image/rootfs $(CONTEXT)/
	install -D -t $(CONTEXT)/rootfs/usr/bin $(BIN)/manager $(BIN)/nethelper
	ln -s manager $(CONTEXT)/rootfs/usr/bin/manager-cli
	install -D -t $(CONTEXT)/rootfs/usr/lib/honeysens $(BIN)/init $(BIN)/runtime $(BIN)/pause
	install -D -t $(CONTEXT)/rootfs/opt/cni/bin $(BIN)/cni/*
	install -D -t $(CONTEXT)/rootfs/usr/libexec/docker/cli-plugins $(COMPOSE)
	ln -s ../libexec/docker/cli-plugins/docker-compose $(CONTEXT)/rootfs/usr/bin/docker-compose
	echo $(REVISION) >$(CONTEXT)/rootfs/revision
	@echo "describing what the programs are made of"
	@GO="$(GO)" packaging/image/boms.sh $(CACHE)/bom $(CONTEXT)/sbom $(REVISION) \
	  $(addprefix $(BIN)/,manager nethelper init runtime cni/offload) $(COMPOSE)=$(COMPOSE_VERSION) \
	  $(addsuffix =$$($(GO) list -m -f '{{.Version}}' github.com/containernetworking/plugins),$(BIN)/cni/bridge $(BIN)/cni/host-local)
	@mkdir -p $(CONTEXT)/rootfs/usr/share/honeysens
	@$(GO) run ./packaging/image/sbom licenses --out $(CONTEXT)/rootfs/usr/share/honeysens/LICENSES.txt $(CONTEXT)/sbom/*.json

.PHONY: image
image: image-context lab-programs ## the production image, in the Docker engine
	packaging/lab/require.sh lab
	$(WITH_ENGINE) packaging/image/build.sh $(REVISION) $(CONTEXT) $(CACHE) $(BIN) $(IMAGE_LIMIT)

.PHONY: dist
dist: image-context lab-programs ## the deployable archive, in out/dist
	packaging/lab/require.sh lab
	$(WITH_ENGINE) packaging/deploy/dist.sh $(REVISION) $(CONTEXT) $(CACHE) $(BIN) $(IMAGE_LIMIT) $(ARCHIVE)

# Binaries for other machines; the image is for the processor of the one that
# builds it.
.PHONY: binaries
binaries: ## the sensor's programs for amd64 and arm64, in out/binaries
	@for arch in amd64 arm64; do \
	  mkdir -p $(OUT)/binaries/$$arch/cni; \
	  GOARCH=$$arch GOOS=linux $(GOBUILD) -o $(OUT)/binaries/$$arch/ ./manager ./nethelper ./packaging/image/init; \
	  GOARCH=$$arch GOOS=linux $(GOBUILD) -o $(OUT)/binaries/$$arch/cni/ ./cni/offload $(CNI_PLUGINS); \
	done
	@cd $(OUT)/binaries && find . -type f ! -name SHA256SUMS | sort | xargs sha256sum | tee SHA256SUMS

.PHONY: outdated
outdated: ## the pinned versions of which newer ones exist; asks the Go module proxy
	@GO="$(GO)" packaging/image/outdated.sh $(COMPOSE_MODULE)@$(COMPOSE_VERSION) \
	  $(ENGINE_MODULE)@$(ENGINE_VERSION) $(CONTAINERD_MODULE)@$(CONTAINERD_VERSION) $(RUNC_MODULE)@$(RUNC_VERSION) \
	  github.com/golangci/golangci-lint/v2@$(GOLANGCI_VERSION) \
	  $$(sed -n 's|^tool=\(.*\)/cmd/[a-z-]*@|\1@|p' packaging/image/boms.sh packaging/image/vulnerable.sh)

.PHONY: vulnerable
vulnerable: sensor-programs ## known vulnerabilities in the image's Go programs; VULNDB=file:///... for a copy of the database
	@GO="$(GO)" packaging/image/vulnerable.sh $(addprefix $(BIN)/,manager nethelper init cni/offload cni/bridge cni/host-local docker-compose)

# The service archives: recon, and the honeypot that the lab assigns to a port.
RECON_ARCHIVE    := $(DIST)/recon-$(REVISION)-amd64.tar.gz
HONEYPOT_ARCHIVE := $(DIST)/honeypot-$(REVISION)-amd64.tar.gz

.PHONY: services
services: ## the service archives of recon and of the lab's honeypot, in out/dist
	packaging/lab/require.sh lab
	$(GOBUILD) -o $(BIN)/recon ./packaging/services/recon
	$(GO) run ./packaging/services/mkservice -metadata packaging/services/recon/metadata.xml -revision $(REVISION) \
	  -file $(BIN)/recon:/recon -entrypoint /recon -read-only -out $(RECON_ARCHIVE)
	packaging/lab/honeypot/make-image $(REVISION) $(HONEYPOT_ARCHIVE) $(CACHE)

# The development sensor.
DEV_BUILD := $(OUT)/dev/build

.PHONY: dev
dev: $(COMPOSE) ## a development sensor that follows the sources until Ctrl-C
	@mkdir -p $(BIN)
	@$(GOBUILD) -o $(BIN)/dev ./packaging/dev
	@exec $(BIN)/dev --revision $(REVISION)

# What the development sensor runs; every program of the sensor in one directory.
.PHONY: dev-programs
dev-programs:
	@mkdir -p $(DEV_BUILD)
	@$(GOBUILD) -o $(DEV_BUILD)/ ./manager ./nethelper ./cni/offload ./packaging/image/init $(CNI_PLUGINS)
	@[ -e $(DEV_BUILD)/pause ] || $(BUILD_PAUSE) $(DEV_BUILD)/pause
