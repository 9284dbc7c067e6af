# `make help` lists what there is. Targets name things; the scripts under deploy do the work.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The steps of `test` build on each other, and the lab wants the machine for itself.
.NOTPARALLEL:

GO ?= go
# The command that `make lab` runs in the guest.
CMD ?=
# How many power cuts `make powercut` makes.
N ?= 20
# 1: `make model` searches the large configurations, too.
FULL ?=
# The first seed of `make sim`, and how many. `make chaos` draws one of its own if none is given.
SEED ?= 1
RUNS ?= 2000
# How long `make chaos` does things to the cluster.
MINUTES ?= 5

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# As named in the heads of the generated files.
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

# CMD reaches the guest as it was typed: neither make nor a shell in between may expand a $ in it.
unexport CMD
lab: export GUEST_COMMAND = $(value CMD)
export GO

# Go's build cache looks at its own files and flags, not at the system's headers: a program that was once built without those of libibverbs
# would be without verbs for ever. So whether they are there is a flag. (Asked for each command: `deps` may have just installed them.)
export CGO_CFLAGS = -O2 -g$(shell test -e /usr/include/infiniband/verbs.h && test -e /usr/include/rdma/rdma_cma.h && echo ' -DWITH_RDMA_HEADERS')

.PHONY: help build demo test test-unit sim test-sim test-web test-lab test-powercut powercut model bench bench-flash bench-flash-lab bench-lab bench-peers lab lab-shell fmt vet lint proto deps clean go-present docs man test-watch test-watch-lab chaos test-chaos

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

build: go-present ## build bin/corfu
	CGO_ENABLED=1 $(GO) build -o bin/corfu ./tools/corfu

demo: deps build ## start a cluster on loopback, load a real file through the log, read it back, compare
	bin/corfu demo

test: deps vet lint test-unit test-web test-watch test-sim test-chaos test-lab test-powercut ## everything: vet, lint, tests with the race detector, the web page in a browser, alerts and dashboards, simulation, chaos on processes, tests over verbs in the lab, two power cuts

# Four packages at a time: those that take longest wait for time-outs, mostly. Each has half an hour: on a machine that compiles and does something else
# besides, the longest take more than the ten minutes that go test gives them.
test-unit: go-present ## tests with the race detector, without the lab; and without it those that count allocations
	$(GO) test -race -p 4 -timeout 30m ./...
	$(GO) test -count=1 -run Alloc ./client ./unit/... ./internal/wire

test-web: go-present ## the web page in headless Chromium; leaves pictures of it in build/web-*.png
	deploy/apt-missing chromium fonts-dejavu-core
	CORFU_WEB=1 $(GO) test ./internal/statusweb -count=1 -timeout 5m -run '^TestThePage'

test-watch: go-present ## alerts by promtool; every panel of the dashboards against a real Prometheus and a cluster; pictures in build/watch
	deploy/apt-missing prometheus librsvg2-bin fonts-dejavu-core
	$(GO) test ./deploy/watch -count=1 -timeout 5m -v -run 'Promtool|LiveCluster|Shipped' -args -live

test-watch-lab: build ## the same over verbs in the lab, with panels of the RDMA device: 2 to 5 minutes; pictures in build/watch-lab
	deploy/apt-missing prometheus librsvg2-bin fonts-dejavu-core
	$(GO) test -c -o build/watch.test ./deploy/watch
	LAB_CPUS=$${LAB_CPUS:-2} LAB_MEM=$${LAB_MEM:-4096} LAB_DISK=4G LAB_TIMEOUT=$${LAB_TIMEOUT:-1500} LAB_RESULTS=build/watch-lab deploy/lab/lab \
		'cd deploy/watch && TMPDIR=$$CORFU_LAB_DISK ../../build/watch.test -test.v -test.run LiveCluster -live -provider verbs -corfu ../../bin/corfu -pictures "$$LAB_RESULTS"'

sim: go-present ## RUNS=2000 simulated clusters with faults from SEED=1 on; SEED=n RUNS=1 replays one
	@internal/sim/run $(SEED) $(RUNS)

test-sim: sim ## what CI simulates: 2000 seeds, and every broken rule is found
	$(GO) test ./internal/sim -count=1 -timeout 10m -tags mutants -run '^TestFinds|^TestR12|^TestStoresThatGoBack'

# The lab sees the program as it is built here.
test-lab: build ## the tests over verbs, on Soft-RoCE in the lab
	deploy/lab/test.sh

powercut: go-present ## cut the lab's power N=20 times under load over verbs; nothing acknowledged may be lost
	CGO_ENABLED=1 $(GO) build -o bin/powercut ./tools/powercut
	bin/powercut -n $(N)

test-powercut: N = 2
test-powercut: powercut

chaos: build ## MINUTES=5 of kill -9, partitions, full disks under load on a cluster of processes; SEED=n draws the same faults again
	CGO_ENABLED=1 $(GO) build -o bin/chaos ./tools/chaos
	bin/chaos -minutes $(MINUTES) $(if $(filter command environment,$(firstword $(origin SEED))),-seed $(SEED))

# A quarter of a minute of faults, and some stores that go back: what CI does.
test-chaos: build
	CGO_ENABLED=1 $(GO) build -o bin/chaos ./tools/chaos
	bin/chaos -seconds 20 -past off
	bin/chaos -seconds 10 -fail-after 1s -faults store-old,store-empty,store-foreign,layout-empty,layout-torn

model: ## check the Promela models of docs/model, and that every rule is needed; FULL=1: the long ones, too
	deploy/apt-missing spin gcc libc6-dev
	docs/model/selftest
	docs/model/run $(if $(FULL),--full)

bench: build ## measure on this machine
	bin/corfu bench

bench-flash: build ## measure the flash engine beside fio
	deploy/apt-missing fio
	bin/corfu bench-flash

bench-flash-lab: build ## the same in the lab, on an emulated NVMe disk
	deploy/lab/bench-flash.sh

bench-lab: build ## measure in the lab, beside perftest
	LAB_CPUS=$${LAB_CPUS:-3} LAB_TIMEOUT=$${LAB_TIMEOUT:-900} deploy/lab/lab \
		'bin/corfu bench --provider verbs --spin 2ms --ops 300 --rounds 25 --duration 2s --dir "$$CORFU_LAB_DISK/bench"'

bench-peers: ## corfu beside Redis and NATS, interleaved: tables and ratios; about 20 minutes on a quiet machine (tools/peers/README.md)
	tools/peers/setup.sh
	rm -f build/peers/results.json
	tools/peers/run.sh
	build/peers/bin/table build/peers/results.json

lab: ## run CMD='...' in the lab: a VM with Soft-RoCE that sees this machine's files
	@deploy/lab/lab "$$GUEST_COMMAND"

lab-shell: ## a shell in the lab
	@deploy/lab/lab --shell

docs: build ## write docs/config.md, the reference of settings, anew
	bin/corfu config reference >docs/config.md.new && mv docs/config.md.new docs/config.md

man: build ## write the man pages into build/man; shell completion is corfu completion bash, zsh or fish
	bin/corfu man build/man

.PHONY: lab-systemd-image test-appliance test-appliance-container test-upgrade fresh-machine deb unit-security

lab-systemd-image: ## make the image of Debian 12 with systemd that test-appliance boots (kept in the lab's cache)
	@deploy/lab/systemd/image

test-appliance: go-present ## install, use, reboot, upgrade and remove corfu on a machine with systemd, over verbs
	deploy/lab/systemd/test.sh

test-appliance-container: go-present ## the same without RDMA, in a container: a minute
	deploy/lab/systemd/test.sh --container

test-upgrade: go-present ## replace every member of a cluster under load by this build; OLD=commit is what it starts with
	deploy/upgrade-test $(OLD)

fresh-machine: ## time the two commands of README.md on a Debian 12 made anew; TEST=1: make test, too
	deploy/fresh-machine.sh $(if $(TEST),--test)

deb: go-present ## build/corfu_VERSION_amd64.deb, looked at by lintian
	deploy/apt-missing lintian
	lintian --fail-on error,warning "$$(deploy/deb/build build)"

unit-security: ## what systemd-analyze says of the services' hardening; worse than 2.0 fails
	@deploy/apt-missing systemd
	@set -o pipefail; for unit in deploy/appliance/systemd/*.service; do \
		systemd-analyze security --offline=true --threshold=20 --no-pager "$$unit" | tail -n 1 || exit 1; done

fmt: go-present ## format the Go code
	$(GO) fmt ./...

vet: go-present
	$(GO) vet ./...

lint: go-present ## vet, formatting, staticcheck, and shellcheck where it is installed
lint: vet
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); \
		[ -z "$$unformatted" ] || { echo "not formatted (make fmt): $$unformatted" >&2; exit 1; }
	$(GO) run $(STATICCHECK) ./...
	@if command -v shellcheck >/dev/null; then set -x; \
		shellcheck .ci/run $$(grep -rlIE '^#!/(usr/)?bin/(env )?(ba)?sh' deploy docs/model internal) && \
		shellcheck -a deploy/install.sh deploy/uninstall.sh && \
		shellcheck deploy/lab/systemd/parts.sh; fi

proto: go-present ## generate the Go code of internal/wire/pb anew
	deploy/apt-missing protobuf-compiler
	GOBIN=$(CURDIR)/build/protoc $(GO) install $(PROTOC_GEN_GO)
	GOBIN=$(CURDIR)/build/protoc $(GO) install $(PROTOC_GEN_GO_GRPC)
	cd internal/wire/pb && PATH=$(CURDIR)/build/protoc:$$PATH protoc --go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative *.proto

deps: ## install with apt what building and running need and is missing
	@deploy/deps.sh

clean: ## remove what was built (the lab's kernel stays in the cache)
	rm -rf bin build

go-present:
	@command -v $(GO) >/dev/null || { echo "make: no $(GO) in PATH; install the Go that go.mod names" >&2; exit 1; }
