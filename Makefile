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

# How long "make hammer" goes on.
HAMMER ?= 60s

# How often "make crash" kills the provider, and the seed of what is random in it; 0 takes one at random and prints it.
KILLS ?= 200
SEED ?= 0

##@ See it work
.PHONY: demo demo-local cluster-up cluster-status cluster-shell cluster-down
demo: deps build-cluster ## Play the story on a real Kubernetes cluster: pods get their own database users
	@if $(BIN)/cluster check; then \
		$(MAKE) cluster-up build-cluster-demo && $(BIN)/cluster exec $(CURDIR)/$(BIN)/cluster-demo; \
	else \
		echo "demo: without a cluster, then: the driver's own code calls the provider, as \"make demo-local\" does"; \
		$(MAKE) demo-local; \
	fi
demo-local: deps build-vault build-provider build-demo ## The same without a Kubernetes cluster
	$(BIN)/demo
cluster-up: deps build-images build-helm build-vault ## A real Kubernetes node with Vault, PostgreSQL and the driver, or the one that is up
	$(BIN)/cluster up
cluster-status: build-cluster ## What runs there
	@$(BIN)/cluster status
cluster-shell: build-cluster ## A shell in there, with kubectl, helm, psql and curl set up
	@$(BIN)/cluster exec
cluster-down: build-cluster ## End it; nothing is left
	@$(BIN)/cluster down

##@ Work on it
.PHONY: unit lint format
unit: ## The quick loop: vet and unit tests
	go vet ./...
	go test ./...
lint: build-lint ## golangci-lint in every module, shellcheck over every script, go.mod tidy and verified, mutants that apply
	test/lint
format: build-lint ## Format the Go code of every module
	test/lint format

##@ Test it
.PHONY: test golden unit-race hammer contract oracle integration crash chart e2e nogap release soak fuzz mutants lean
test: ## Everything that must hold, in order, with the seconds that each part took
	test/run
golden: ## What becomes of each of the injector's annotations: pairs of files, a pod in and a pod out; every row must have one
	@cd internal/webhook && go test -count=1 -run '^TestGolden$$'
unit-race: ## Unit tests under the race detector
	CGO_ENABLED=1 go test -race ./...
hammer: ## Polls, refills, crashes and readers at one volume at once, HAMMER=60s
	HAMMER=$(HAMMER) CGO_ENABLED=1 go test -race -count=1 -timeout=0 -v -run '^TestHammer$$' ./internal/provider
contract: build-vault build-withvault ## The same suite against the fake Vault and the real one: they must agree
	$(BIN)/withvault go test -count=1 -run Contract ./internal/client/...
oracle: build-oracle ## Templates come out as from consul-template, byte for byte, but for the differences that are documented
	cd test/oracle && $(CURDIR)/$(BIN)/oracle.test -test.timeout=10m
integration: build-vault build-provider ## The provider process with a real Vault and PostgreSQL
	cd test/integration && go test -count=1 -parallel=16 ./...
crash: build-vault build-provider build-crash ## Kill the provider KILLS times while pods come and go, and count what is left
	$(BIN)/crash -kills=$(KILLS) -seed=$(SEED)
chart: build-helm build-provider build-webhook ## The chart: what it renders, what it refuses, and whether deployment/ is up to date
	test/chart
e2e: build-images build-helm build-vault build-cluster-demo ## Everything on a real cluster; with CI=true it must be possible
	test/e2e
nogap: build-images build-helm build-vault ## Pods query all the time while credentials change; NOGAP_SECONDS= NOGAP_SEED= NOGAP_TROUBLES=
	$(BIN)/cluster run test/bats/run nogap.bats
release: build-images build-helm build-vault ## Every way in which a pod can end, and how long its credentials outlive it; RELEASE_PODS= RELEASE_OUTAGE=
	$(BIN)/cluster run test/bats/run release.bats
soak: build-images build-helm build-vault ## No gap for five minutes in each part and under each trouble, at times of a new seed; and what takes longer
	NOGAP_SECONDS=300 NOGAP_TROUBLES="outage kill update outage+kill+update" NOGAP_SEED="$${NOGAP_SEED:-$$RANDOM}" \
		$(BIN)/cluster run test/bats/run nogap.bats long.bats
fuzz: ## Fuzz every parser of tenant text, FUZZTIME=1m each
	FUZZTIME=$(FUZZTIME) test/fuzz
mutants: build-vault build-provider build-withvault ## Break each invariant on purpose: a test must notice
	test/mutants/run
lean: ## What the product depends on: few modules, each with a reason, and no test machinery
	test/lean

##@ Measure it
.PHONY: bench simulate
bench: deps build-vault build-provider build-webhook build-kubernetes build-bench ## The figures of docs/performance.md and their targets; NAME=mount_again_ratio for one, FLAGS=-list
	@$(BIN)/bench -name='$(NAME)' $(FLAGS)
simulate: ## What reaches Vault in a second, from 10 nodes to 10,000, by the provider's own policy in virtual time
	@cd internal/lease && SIMULATE=all go test -count=1 -timeout=0 -run '^TestSimulation$$'

# first BINARY,WHAT: says what takes so long, while there is no such binary yet.
first = [[ -e $(BIN)/$(1) ]] || echo "building $(2) the first time, with what it needs to fetch; seconds after that"

##@ Build it
.PHONY: build image deployment build-provider build-webhook build-vault build-demo build-withvault build-oracle build-crash build-bench build-lint build-kubernetes build-helm build-cluster build-client build-contract build-images build-cluster-demo
build: build-provider build-webhook build-vault build-demo build-withvault build-oracle build-crash build-bench build-lint build-images build-helm build-cluster-demo ## All binaries and images (go itself knows what is up to date)
image: build-provider build-webhook ## The images, build/images/provider.tar and webhook.tar, for "docker load" or a registry
	cd test/cluster && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/ ./cmd/images
	$(BIN)/images provider webhook
deployment: build-helm ## Render deployment/ from the chart anew
	test/chart render
build-provider:
	@$(call first,provider,the provider: about a minute)
	go build -trimpath -o $(BIN)/provider ./cmd/provider
build-webhook:
	@$(call first,webhook,the webhook: about a minute)
	go build -trimpath -o $(BIN)/webhook ./cmd/webhook
build-vault:
	@$(call first,vault,the tests' own Vault: its real core takes about 8 minutes)
	cd test/vault && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/vault .
build-demo:
	@$(call first,demo,the demo with the driver's own code: about 2 minutes)
	cd test/integration && go build -o $(CURDIR)/$(BIN)/demo ./cmd/demo
build-withvault:
	@$(call first,withvault,the test bed: about 2 minutes)
	cd test/integration && go build -o $(CURDIR)/$(BIN)/withvault ./cmd/withvault
build-oracle:
	@$(call first,oracle.test,consul-template and the tests that compare with it: about 2 minutes)
	cd test/oracle && go test -c -o $(CURDIR)/$(BIN)/oracle.test .
build-crash:
	@$(call first,crash,the crash test: about 2 minutes)
	cd test/integration && go build -o $(CURDIR)/$(BIN)/crash ./cmd/crash
build-bench:
	@$(call first,bench,the benchmarks: about 2 minutes)
	cd test/bench && go build -o $(CURDIR)/$(BIN)/bench .
build-lint:
	@$(call first,golangci-lint,the linter: about 2 minutes)
	cd tools && go build -trimpath -o $(CURDIR)/$(BIN)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
build-kubernetes:
	@$(call first,kubeone,Kubernetes and the driver: about 7 minutes)
	cd test/cluster && go build -ldflags="-s -w $(KUBERNETES_VERSION)" -o $(CURDIR)/$(BIN)/kubeone ./cmd/kubeone
	cd test/cluster && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/ sigs.k8s.io/secrets-store-csi-driver/cmd/secrets-store-csi-driver
	@ln -sf kubeone $(BIN)/kubectl
build-helm:
	@$(call first,helm,Helm: about a minute)
	cd test/cluster && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/ helm.sh/helm/v4/cmd/helm
build-cluster:
	@$(call first,cluster,the test bed's cluster: about a minute)
	cd test/cluster && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/ ./cmd/cluster ./cmd/images ./cmd/registrar ./cmd/livenessprobe ./cmd/pause
build-client:
	@$(call first,client,the client of the end-to-end suite: seconds)
	cd test/integration && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/client ./cmd/client
build-contract:
	go test -c -o $(BIN)/podwatch.test ./internal/podwatch
build-images: build-provider build-webhook build-kubernetes build-cluster build-client build-contract
	@rm -rf build/charts && mkdir -p build/charts && cp -r --no-preserve=mode "$$(cd test/cluster && go list -m -f '{{.Dir}}' sigs.k8s.io/secrets-store-csi-driver)/charts/secrets-store-csi-driver" build/charts/
	$(BIN)/images
build-cluster-demo:
	cd test/cluster && go build -ldflags="-s -w" -o $(CURDIR)/$(BIN)/cluster-demo ./cmd/demo

# Kubernetes is told its version by the linker; otherwise it calls itself v0.0.0.
KUBERNETES_VERSION = -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36

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
