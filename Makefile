# callhome: build, test, measure. `make help` lists the targets.

GO        ?= go
# No cgo: the programs are static. urfave/cli's documentation generator and
# spelling suggestions are left out; they cost space and start-up time. So is
# net/http's HTTP/2.
TAGS      := urfave_cli_no_docs,urfave_cli_no_suggest,nethttpomithttp2
VERSION   := $(shell packaging/version)
LDFLAGS   := -s -w -X main.version=$(VERSION)
BUILD     := CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'
# The newest of which every dependency can be had from the module proxy.
NFPM      := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.1
# ARCH=amd64, say, builds packages for that alone; all are in packaging/build.
ARCH      ?=
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME  ?= 10s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the programs into bin/
	@mkdir -p bin
	$(BUILD) -o bin/callhome-trigger ./cmd/callhome-trigger
	$(BUILD) -o bin/callhome-mgr ./cmd/callhome-mgr
	$(BUILD) -o bin/callhome-nms ./cmd/callhome-nms

.PHONY: deps
deps: ## install the Debian packages that the tests need
	test/install-deps

.PHONY: demo-deps
demo-deps: ## install those that the demo needs
	test/install-deps demo

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags integration ./test/...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags integration ./test/...

.PHONY: unit
unit: ## unit tests, with the race detector; no root, no network
	CGO_ENABLED=1 $(GO) test -race -count=1 ./...

# Each runs three stations and nats-servers with 60 devices: beside all other stories they
# would take the time that those need.
CLUSTER_STORIES := TestACluster|TestADeviceCallsAnother|TestDevicesBehindHAProxy|TestStationsAreRestarted
.PHONY: integration
integration: deps build ## stories with the real sshd, ssh, netconfd, ncclient, libnetconf2 (root)
	@list=$$(mktemp); \
	export CALLHOME_SKIP_LIST=$$list CALLHOME_BIN_DIR="$(CURDIR)/bin" CGO_ENABLED=1; status=0; \
	$(GO) test -race -count=1 -v -tags integration -timeout 40m -p 1 -skip '$(CLUSTER_STORIES)' ./test/integration/ ./test/clients/ ./test/docs/ ./test/web/ || status=$$?; \
	$(GO) test -race -count=1 -v -tags integration -timeout 20m -run '$(CLUSTER_STORIES)' ./test/integration/ || status=$$?; \
	echo "skipped in all: $$(wc -l < $$list)"; sed 's/^/  /' $$list; rm -f $$list; exit $$status

.PHONY: cluster-proof
cluster-proof: deps build ## the stories of a cluster with N devices (3000), one after another; prints their tables (root)
	CALLHOME_BIN_DIR="$(CURDIR)/bin" CALLHOME_CLUSTER_DEVICES=$(or $(N),3000) $(GO) test -count=1 -v -parallel 1 -tags integration -timeout 30m -run '$(CLUSTER_STORIES)' -skip TestDevicesBehindHAProxy ./test/integration/

.PHONY: packages-test
packages-test: deps ## build, install, upgrade, remove, purge the packages in Debian trees (root)
	@list=$$(mktemp); \
	CALLHOME_SKIP_LIST=$$list $(GO) test -count=1 -v -tags integration -timeout 20m ./test/packages/; \
	status=$$?; \
	echo "skipped in all: $$(wc -l < $$list)"; sed 's/^/  /' $$list; rm -f $$list; exit $$status

CHAOS ?= 10m
.PHONY: chaos
chaos: deps build ## faults against 50 live sessions for CHAOS=10m, with a table of what was lost (root)
	CHAOS=$(CHAOS) CALLHOME_BIN_DIR="$(CURDIR)/bin" CGO_ENABLED=1 $(GO) test -race -count=1 -v -tags integration -timeout 0 -run TestChaos ./test/integration/

.PHONY: test
test: unit integration packages-test ## all tests

.PHONY: packages
packages: ## .deb and .rpm for ARCH, or all architectures, in dist/; prints their sizes
	GO="$(GO)" TAGS="$(TAGS)" NFPM="$(NFPM)" VERSION="$(VERSION)" packaging/build $(ARCH)

.PHONY: release
release: ## all packages, the source and the SBOMs in dist/, with checksums
	GO="$(GO)" TAGS="$(TAGS)" NFPM="$(NFPM)" VERSION="$(VERSION)" packaging/release $(ARCH)

.PHONY: units
units: ## what systemd says of the units, and how exposed it finds them
	packaging/units

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$dir/*_test.go | cut -c6-); do \
			echo "$$dir $$target"; test/fuzz-one "$$dir" "$$target" $(FUZZTIME) || exit 1; \
		done; \
	done

.PHONY: bench
bench: bench-programs ## what a call home costs, beside bare sshd in the same run (root)
	bin/bench

.PHONY: bench-steps
bench-steps: bench-programs ## where the milliseconds of one login go, packet by packet (root)
	bin/bench -step steps

.PHONY: bench-programs
bench-programs: build
	$(CC) -O2 -Wall -static -o bin/cfloor test/bench/cfloor/cfloor.c
	$(BUILD) -o bin/gofloor ./test/bench/gofloor
	$(BUILD) -o bin/bench ./test/bench
	@# As packages install them: copies, which start faster than the linker's output, and
	@# one program under two names.
	rm -rf bin/installed && mkdir bin/installed
	cp bin/callhome-mgr bin/callhome-nms bin/cfloor bin/gofloor bin/installed/
	ln -s callhome-mgr bin/installed/callhome-trigger

N ?= 10000
.PHONY: fleet
fleet: bench-programs ## a station with N devices: storm, restart, hostile crowd, drain (root, minutes, up to 2 GB of memory)
	bin/bench -step fleet -n $(N)

.PHONY: simulate
simulate: ## what a fleet does to an NMS that was away, in virtual time; flags in ARGS
	@mkdir -p bin
	$(BUILD) -o bin/simulate ./test/simulate
	bin/simulate -plot bin/simulate.svg $(ARGS)

.PHONY: demo
demo: demo-deps build ## one call home on this machine, every step shown (root)
	test/demo/demo

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
