# Everything a change has to pass is a target here, and .ci/run is made of the same targets, so that what passes on
# a desk passes there. Tools are pinned by internal/tools, a module of its own, and built on first use.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules --warn-undefined-variables
.DEFAULT_GOAL := help

GO       ?= go
FUZZTIME ?= 20000x
BENCH    ?= .
PKGS     ?= ./...
SEEDS    ?= 500
FROM     ?= 1
BROWSER  ?= chromium
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The image of the nodes' containers, and what runs them: docker compose, or the older docker-compose.
IMAGE    ?= keyquorum
COMPOSE  ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# What has to build for wasip1 too, which keeps what only a real operating system has out of it: docs/ARCHITECTURE.md.
WASI_PKGS := ./fsm/... ./node/... ./rpc/... ./client/...
# Where generated code is, and nothing else.
GENERATED := rpc/gen fsm/internal/logpb
BASELINE  := test/compat/api.binpb

# One folder of tools for each set of pins and each version of Go: changing either builds them anew, switching back
# finds the old ones.
TOOLS_KEY := $(shell { $(GO) env GOVERSION; cat internal/tools/go.mod internal/tools/go.sum; } | sha256sum | cut -c1-12)
TOOLS     := $(CURDIR)/bin/tools/$(TOOLS_KEY)
BUF       := $(TOOLS)/buf
GOLANGCI  := $(TOOLS)/golangci-lint
PLUGINS   := $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-connect-go

##@ Use

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nVariables: PKGS=%s SEEDS=%s FROM=%s FUZZTIME=%s BENCH=%s BROWSER=%s VERSION=%s\n' \
	  '$(PKGS)' '$(SEEDS)' '$(FROM)' '$(FUZZTIME)' '$(BENCH)' '$(BROWSER)' '$(VERSION)'

.PHONY: build
build: ## Build bin/keyquorum, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/keyquorum ./cmd/keyquorum

.PHONY: demo
demo: ## Run the demo: three nodes in one process, told step by step
	$(GO) run ./cmd/keyquorum demo

.PHONY: image-files
image-files: build ## Lay out in bin/image what goes into the image
	rm -rf bin/image
	install -D bin/keyquorum bin/image/keyquorum
	# What a new volume takes its owner and mode from.
	install -d -m 0700 bin/image/volumes/{data,secrets,operator}
	install -d -m 0700 bin/image/volumes/setup/{root,node1,node2,node3,operator}

.PHONY: image
image: image-files ## Build IMAGE, of the binary that this machine built
	sed -n '/^FROM scratch/,$$ { s|--from=build ||; s|/src/||; p }' Dockerfile | docker build --quiet --tag $(IMAGE) --file - .

.PHONY: up
up: image ## Start three nodes in containers, and wait until they are ready
	KEYQUORUM_IMAGE=$(IMAGE) $(COMPOSE) up --no-build --detach
	@for node in node1 node2 node3; do \
	  for ((tries = 60; tries > 0; tries--)); do \
	    if $(COMPOSE) exec -T $$node /keyquorum health --addr http://127.0.0.1:7403 >/dev/null 2>&1; then echo "$$node is ready"; continue 2; fi; \
	    sleep 1; \
	  done; \
	  echo "$$node did not get ready: see $(COMPOSE) logs $$node" >&2; exit 1; \
	done

.PHONY: down
down: ## End them; what they keep stays in the volumes
	$(COMPOSE) down

.PHONY: down-volumes
down-volumes: ## End them and delete what they keep, the master keyring included
	$(COMPOSE) down --volumes

.PHONY: clean
clean: ## Remove bin/, the built tools included
	rm -rf bin

##@ Test

.PHONY: test
test: ## Run the tests of PKGS
	$(GO) test $(PKGS)

.PHONY: race
race: ## Run the tests of PKGS under the race detector
	CGO_ENABLED=1 $(GO) test -race $(PKGS)

.PHONY: compose-test
compose-test: ## Test docker-compose.yml with real containers; needs docker
	$(MAKE) --no-print-directory image IMAGE=keyquorum-test
	COMPOSE='$(COMPOSE)' KEYQUORUM_IMAGE=keyquorum-test $(GO) test -tags compose -count 1 -v -timeout 15m ./test/compose

.PHONY: browser-test
browser-test: ## Look at the example application with BROWSER, which is Chromium or one that speaks like it
	KEYQUORUM_BROWSER='$(BROWSER)' $(GO) test -count=1 -timeout 5m -v ./test/browser

.PHONY: e2e
e2e: ## Run all rounds of the tests of the real binary as processes
	$(GO) test -count 1 -v -timeout 30m ./test/e2e -full

.PHONY: partition
partition: ## Cut nodes off from each other, each in a network namespace of its own; needs root, ip and nft
	unshare --net $(GO) test -count 1 -v -timeout 30m -run Partition ./test/e2e -partition

.PHONY: capture
capture: ## Capture all traffic of a cluster, and search it, its disks and its logs for secrets; needs root and ip
	unshare --net $(GO) test -count 1 -v -timeout 5m -run Capture ./test/e2e -capture

.PHONY: abuse
abuse: ## Abuse each kind of port of a cluster for a minute: random bytes, half-open connections, wrong certificates
	$(GO) test -count 1 -v -timeout 15m -run Abused ./test/e2e -abuse 1m

.PHONY: sim
sim: ## Simulate SEEDS clusters under faults, from seed FROM on; the last line has the sums
	@mkdir -p bin
	$(GO) test -c -o bin/sim.test ./test/sim
	@cd test/sim && KEYQUORUM_SEEDS=$(SEEDS) KEYQUORUM_SEED_FROM=$(FROM) ../../bin/sim.test -test.run TestSeeds -test.timeout 0

.PHONY: planted
planted: ## Plant each known fault in the code, and see which check catches it; takes minutes
	$(GO) test -tags planted -count 1 -v -timeout 30m -run 'TestPlanted$$' ./test/planted

.PHONY: million
million: ## Measure a million users on three nodes, which takes minutes and 2 GB of memory
	$(GO) test -count 1 -v -timeout 60m -run Million ./test/e2e -users 1000000

.PHONY: model
model: ## Explore the model of the protocol deeper than the tests do; takes minutes and 8 GB of memory
	KEYQUORUM_MODEL=deep $(GO) test -count 1 -v -timeout 60m ./test/model

.PHONY: fuzz
fuzz: ## Run each fuzz target FUZZTIME (20000x: inputs; 30s: a time)
	FUZZTIME=$(FUZZTIME) GO=$(GO) bash .ci/fuzz

.PHONY: bench
bench: ## Run the benchmarks of PKGS that match BENCH
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKGS)

.PHONY: cover
cover: ## Measure what the tests cover: bin/cover.html
	@mkdir -p bin
	$(GO) test -coverprofile=bin/cover.out -coverpkg=$(PKGS) $(PKGS)
	$(GO) tool cover -html=bin/cover.out -o bin/cover.html
	$(GO) tool cover -func=bin/cover.out | tail -n 1

##@ Check

.PHONY: ci
ci: ## Run all that a change has to pass, as .ci/run does
	bash .ci/run

.PHONY: fmt
fmt: $(GOLANGCI) $(BUF) ## Format the Go code and the protos
	$(GOLANGCI) fmt
	$(BUF) format --write

.PHONY: fmt-check
fmt-check: $(GOLANGCI) $(BUF) ## Fail if something is not formatted
	$(GOLANGCI) fmt --diff
	$(BUF) format --diff --exit-code

.PHONY: vet
vet: ## Run go vet
	$(GO) vet ./...

.PHONY: lint
lint: $(GOLANGCI) ## Run the linters of .golangci.yml
	$(GOLANGCI) config verify
	$(GOLANGCI) run ./...

.PHONY: compose-check
compose-check: ## Fail if docker compose v2 would not take docker-compose.yml
	cd internal/tools && GOWORK=off $(GO) run ./composecheck $(CURDIR)/docker-compose.yml

.PHONY: mod-check
mod-check: ## Fail if go.mod is not tidy or a module's content has changed
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: wasip1
wasip1: ## Build and vet what has to run on wasip1
	GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 $(GO) build $(WASI_PKGS)
	GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 $(GO) vet $(WASI_PKGS)

##@ Protos

.PHONY: generate
generate: $(BUF) $(PLUGINS) ## Generate code from the protos
	PATH="$(TOOLS):$$PATH" $(BUF) generate

.PHONY: generate-check
generate-check: $(BUF) $(PLUGINS) ## Fail if the generated code is not current
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	PATH="$(TOOLS):$$PATH" $(BUF) generate --output "$$fresh"; \
	for dir in $(GENERATED); do \
	  diff -ru "$$dir" "$$fresh/$$dir" || { echo "$$dir is not what the protos give: run 'make generate'" >&2; exit 1; }; \
	done

.PHONY: proto-lint
proto-lint: $(BUF) ## Lint the protos
	$(BUF) lint

.PHONY: proto-breaking
proto-breaking: $(BUF) ## Fail if the protos break readers of the checked-in baseline
	$(BUF) breaking --against $(BASELINE)

.PHONY: proto-baseline
proto-baseline: $(BUF) ## Make the protos as they are the baseline: a decision, so say why in the commit
	$(BUF) build --exclude-source-info --output $(BASELINE)

##@ Tools

.PHONY: tools
tools: $(BUF) $(PLUGINS) $(GOLANGCI) ## Build the pinned tools

# $(call tool,PACKAGE) builds one tool of internal/tools into $(TOOLS). The tools' own module decides its version.
tool = cd internal/tools && GOWORK=off $(GO) build -o $@ $(1)

$(BUF):
	$(call tool,github.com/bufbuild/buf/cmd/buf)
$(TOOLS)/protoc-gen-go:
	$(call tool,google.golang.org/protobuf/cmd/protoc-gen-go)
$(TOOLS)/protoc-gen-connect-go:
	$(call tool,connectrpc.com/connect/cmd/protoc-gen-connect-go)
$(GOLANGCI):
	$(call tool,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
