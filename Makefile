# Leasehold. "make" alone lists what can be asked for.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL := /bin/bash

BIN := build/bin

# The real Vault of the tests; a stock "vault" or "bao" does as well.
export VAULT_BIN ?= $(CURDIR)/$(BIN)/vault

# Nothing here needs C but the race detector; and whoever builds, tests or lints in one way shares what was compiled.
export CGO_ENABLED := 0

# How long each fuzz target runs.
FUZZTIME ?= 1m

##@ See it work
.PHONY: demo demo-local
demo: demo-local ## Play the story: pods get their own database users, on a real Vault and PostgreSQL
demo-local: deps build-vault build-provider build-demo ## The same without a Kubernetes cluster, which is all there is today
	$(BIN)/demo

##@ Work on it
.PHONY: unit lint format
unit: ## The quick loop: vet and unit tests
	go vet ./...
	go test ./...
lint: build-lint ## golangci-lint in every module, shellcheck over every script, go.mod tidy and verified
	test/lint
format: build-lint ## Format the Go code of every module
	test/lint format

##@ Test it
.PHONY: test unit-race contract integration fuzz mutants lean
test: ## Everything that must hold, in order, with the seconds that each part took
	test/run
unit-race: ## Unit tests under the race detector
	CGO_ENABLED=1 go test -race ./...
contract: build-vault build-withvault ## The same suite against the fake Vault and the real one: they must agree
	$(BIN)/withvault go test -count=1 -run Contract ./internal/client/...
integration: build-vault build-provider ## The provider process with a real Vault and PostgreSQL
	cd test/integration && go test -count=1 -parallel=16 ./...
fuzz: ## Fuzz every parser of tenant text, FUZZTIME=1m each
	FUZZTIME=$(FUZZTIME) test/fuzz
mutants: build-vault build-provider build-withvault ## Break each invariant on purpose: a test must notice
	test/mutants/run
lean: ## What the product depends on: few modules, each with a reason, and no test machinery
	test/lean

# first BINARY,WHAT: says what takes so long, while there is no such binary yet.
first = [[ -e $(BIN)/$(1) ]] || echo "building $(2) the first time, with what it needs to fetch; seconds after that"

##@ Build it
.PHONY: build build-provider build-vault build-demo build-withvault build-lint
build: build-provider build-vault build-demo build-withvault build-lint ## All binaries, into build/bin (go itself knows what is up to date)
build-provider:
	@$(call first,provider,the provider: about a minute)
	go build -trimpath -o $(BIN)/provider ./cmd/provider
build-vault:
	@$(call first,vault,the tests' own Vault: its real core takes about 8 minutes)
	cd test/vault && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/vault .
build-demo:
	@$(call first,demo,the demo with the driver's own code: about 2 minutes)
	cd test/integration && go build -o $(CURDIR)/$(BIN)/demo ./cmd/demo
build-withvault:
	@$(call first,withvault,the test bed: about 2 minutes)
	cd test/integration && go build -o $(CURDIR)/$(BIN)/withvault ./cmd/withvault
build-lint:
	@$(call first,golangci-lint,the linter: about 2 minutes)
	cd tools && go build -trimpath -o $(CURDIR)/$(BIN)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

##@ Keep house
.PHONY: deps clean help
deps: ## Install the Debian packages that are missing, if any
	@tools/deps
clean: ## Remove what was built
	rm -rf build
help: ## This list
	@awk 'BEGIN { FS = ":.*## "; print "Leasehold: what \"make\" can do." } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
