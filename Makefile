# Every target works from a fresh clone: what it needs, it installs first, into .venv, from the hashed lock files.
# A second call is instant, since each installation leaves a stamp that only a newer lock file or pyproject.toml outdates.

PYTHON ?= python3
PORT ?= 41002
CONFIG ?= examples/policy-config.yaml
PYTEST_ARGS ?=
BENCH_ARGS ?=
REPORT_ARGS ?=
MATRIX_ARGS ?=
LOADTEST_SECONDS ?= 60
LOADTEST_USERS ?= 50
SOAK_SECONDS ?= 1200

# Bytecode is written whatever the surroundings say: without it a gateway takes 1.4 s to start instead of 0.7.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
AUDIT := .tools/audit/.installed
NODE := tests/sdk/node
AXE := tests/acceptance/console/node
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --build-deps-for editable

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-system deploy-tools docs run test acceptance autobahn screenshots test-image sdk-matrix policy-report lint format types bench bench-micro bench-sockets loadtest soak audit sbom lock clean
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(RUNTIME) ## Make .venv with what the gateway needs to run
	@echo "$(VENV) is ready"

setup-dev: $(DEV) ## Make .venv with what tests, lint and benchmarks need too
	@echo "$(VENV) is ready"

setup-system: ## Install missing system packages with apt-get (venv, nginx, Node.js); asks sudo when not root
	@.ci/setup-system

run: $(RUNTIME) ## Start the gateway on PORT (41002) with CONFIG (examples/policy-config.yaml)
	$(BIN)/kt gateway run --policy-config $(CONFIG) --port $(PORT)

deploy-tools: .tools/bin/helm .tools/bin/compose-parse ## Build helm and the Compose reference parser, which check deploy/ (Go needed)
	@echo ".tools/bin is ready"

.tools/bin/helm:
	GOBIN=$(CURDIR)/.tools/bin go install helm.sh/helm/v3/cmd/helm@v3.18.6

.tools/bin/compose-parse:
	GOBIN=$(CURDIR)/.tools/bin go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2
	mv .tools/bin/cmd $@

test: $(DEV) node-sdk ## Run the whole test suite but the container image and what acceptance runs
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --ignore tests/acceptance $(PYTEST_ARGS)

# The browser runs an event loop of its own, which the other tests could not bear in their process.
acceptance: $(DEV) node-sdk axe ## Run the heavy tests, with real servers and long runs (PostgreSQL, Redis: make setup-system)
	$(BIN)/python -m pytest -m "not slow" --ignore tests/acceptance/console tests/acceptance $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/acceptance/console $(PYTEST_ARGS)

autobahn: $(DEV) ## Run Autobahn|Testsuite's WebSocket client, all 517 cases (Python 2.7 needed; a quarter of an hour)
	$(BIN)/python -m pytest -m slow tests/acceptance/websocket $(PYTEST_ARGS)

screenshots: $(DEV) ## Picture every page of the console into docs/images (Chromium needed: make setup-system)
	$(BIN)/python -m tests.acceptance.console.screenshots docs/images

test-image: $(DEV) ## Build the container image and try it (root, debootstrap and buildah needed; minutes)
	$(BIN)/python -m pytest -m slow tests/test_image.py $(PYTEST_ARGS)

sdk-matrix: $(DEV) ## Run every official SDK against every provider's format; print the table (npm, mvn, go: minutes)
	$(BIN)/python -m tests.sdk.matrix $(MATRIX_ARGS)

policy-report: $(DEV) ## Measure the policies on labelled data (REPORT_ARGS="--data FOLDER"); fail when a goal is missed
	$(BIN)/python -m tests.policy.report $(REPORT_ARGS)

docs: $(DEV) ## Build the documentation into build/site, strictly: no page left out, no link into nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(DEV) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV) ## Mend formatting and what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV) ## Check types, strictly
	$(BIN)/mypy -p gateway -p translators -p policy -p loadtest

bench: $(DEV) ## Measure the gateway beside nginx and direct calls; print the table with its gates
	$(BIN)/python -m loadtest.compare $(BENCH_ARGS)

bench-micro: $(DEV) ## Measure the gateway's own code, without kernel and network; fail when a gate is missed
	$(BIN)/python -O -m loadtest.micro --check $(BENCH_ARGS)

bench-sockets: $(DEV) ## Measure WebSockets beside nginx's proxying: CPU a message, latency, what an idle socket costs
	$(BIN)/python -m loadtest.websocket $(BENCH_ARGS)

loadtest: $(DEV) ## Run Locust against a gateway and a paced provider for LOADTEST_SECONDS (60)
	$(BIN)/python -m loadtest.run --seconds $(LOADTEST_SECONDS) --users $(LOADTEST_USERS)

audit: $(AUDIT) ## Look for known vulnerabilities in what the lock files name (AUDIT_REQUIRED=1: fail where nobody can say)
	@.tools/audit/bin/python .ci/supply_chain.py audit requirements.lock requirements-dev.lock

sbom: $(AUDIT) ## Write build/sbom.cdx.json, a CycloneDX bill of materials of the gateway
	@.tools/audit/bin/python .ci/supply_chain.py sbom requirements.lock build/sbom.cdx.json

soak: $(DEV) ## Mix everything, with faults, for SOAK_SECONDS (1200); fail when an event is lost or anything grows
	$(BIN)/python -m loadtest.soak --seconds $(SOAK_SECONDS)

lock: $(DEV) ## Resolve the lock files anew (on the lowest Python supported, 3.11)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make lock: .venv must be of Python 3.11: make clean, then make lock PYTHON=python3.11")'
	$(PIP_COMPILE) --output-file requirements.lock pyproject.toml
	$(PIP_COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	$(PIP_COMPILE) --output-file tests/sdk/matrix/python/requirements.lock tests/sdk/matrix/python/requirements.in
	$(PIP_COMPILE) --output-file .ci/audit.lock .ci/audit.in

clean: ## Remove the environment, caches and build products
	rm -rf $(VENV) .tools .sdk-matrix tests/sdk/matrix/node/node_modules tests/sdk/matrix/java/target build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(NODE)/node_modules $(AXE)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ensurepip is what Debian and Ubuntu leave out of python3 and put into python3-venv.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that. Next step: install one and name it," \
			"for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make a virtual environment. Next step: make setup-system" \
			"(or: sudo apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# Tools that look at the gateway's packages have an environment of their own, and never share one with them.
$(AUDIT): .ci/audit.lock | $(BIN)/python
	$(BIN)/python -m venv .tools/audit
	.tools/audit/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r .ci/audit.lock
	@touch $@

# The Node.js SDK is tested where Node.js is; its tests say why they were skipped elsewhere.
.PHONY: node-sdk
node-sdk:
	@if command -v npm >/dev/null && [ -f $(NODE)/package-lock.json ]; then \
		$(MAKE) --no-print-directory $(NODE)/node_modules/.package-lock.json; fi

# What looks for barriers in the console's pages; only where npm is, like the Node.js SDK.
.PHONY: axe
axe:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(AXE)/node_modules/.package-lock.json; fi

$(AXE)/node_modules/.package-lock.json: $(AXE)/package-lock.json
	npm ci --prefix $(AXE) --ignore-scripts --no-audit --no-fund
	@touch $@

$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json
	npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund
	@touch $@
