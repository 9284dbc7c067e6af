# corfu: `make help` lists what there is. Scripts do the work; targets only name it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO ?= go
# The command that `make lab` runs in the guest.
CMD ?=

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

# CMD reaches the lab as it was typed: neither make nor a shell in between may expand a $ in it.
unexport CMD
lab: export GUEST_COMMAND = $(value CMD)

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

##@ the lab

.PHONY: lab
lab: ## run CMD='...' in the RDMA lab: a VM with Soft-RoCE that sees this machine's files
	@deploy/lab/lab "$$GUEST_COMMAND"

.PHONY: lab-shell
lab-shell: ## a shell in the RDMA lab
	@deploy/lab/lab --shell
