# `make run` and `make test` install what they need, in this folder; `make help` lists the rest.

PYTHON ?= python3
CONFIG ?=
DEMO ?=
PYTEST_ARGS ?=
RELEASE_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Marks of what is installed: what running needs, the demo's engine, all that checks need and most
# that tests need, what a release needs.
RUNTIME := $(VENV)/.runtime
PACKAGE := $(VENV)/.package
ENGINE := .cache/engine/built-of
DEV := $(VENV)/.dev
RELEASE := $(VENV)/.release
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# For what is large: it takes a tenth of pip's CPU time.
UV := $(BIN)/uv
INSTALL_FAST := $(UV) pip install --quiet --python=$(BIN)/python
PYTEST := pytest --numprocesses=auto
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
LOCKING := .cache/lock
NODE := .cache/node

# Where it is set, as in some containers, each process compiles all of the code again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run watch demo test check fast collect coverage tools lint format types docs lock release-dry-run clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Without a configuration and without credentials: the demo.
TO_WATCH := $(strip $(CONFIG) $(wildcard config.yaml) $(foreach name,CWE_CONFIG__FILE CWE_ACCOUNTS CLOUDFLARE_API_TOKEN CLOUDFLARE_API_KEY,$(value $(name))))

run: $(if $(TO_WATCH),watch,demo) ## run the exporter with CONFIG (config.yaml), or for the account of CLOUDFLARE_API_TOKEN; without either, the demo

watch: $(PACKAGE)
	@exec $(BIN)/python -m exporter $(if $(CONFIG),--config.file="$(CONFIG)")

demo: $(ENGINE) ## watch sample workflows on Cloudflare's engine, run on this machine: no account needed; DEMO=prometheus adds Prometheus
	@exec $(BIN)/python -m demo $(DEMO:%=--with=%)

test: tools ## run the tests; PYTEST_ARGS="-k name" picks some
	$(BIN)/python -m $(PYTEST) $(PYTEST_ARGS)

check: $(DEV) ## lint, types and the fast tests, which start no process, side by side: within a minute
	@$(MAKE) --no-print-directory --jobs --output-sync=line lint types fast

fast: $(DEV)
	$(BIN)/python -m pytest --numprocesses=logical -m "not (process or slow)" $(PYTEST_ARGS)

# So that not each process of a first run compiles all tests.
collect: $(DEV)
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null

coverage: tools ## run the tests, and show the lines that none of them reaches
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

tools: $(DEV) $(RELEASE) ## install what the tests run beside the exporter
	tests/install-system-packages
	$(BIN)/python -m demo --build
	$(BIN)/python -c 'from tests.node import HERE, install; install(HERE)'

lint: $(DEV) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(DEV) ## format, and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(DEV) ## check the types
	$(BIN)/mypy

docs: $(DEV) ## generate parts of docs, alerts, dashboards and chart
	$(BIN)/python -m tools.generate

lock: ## pin the newest versions that pyproject.toml and package.json allow
	$(PYTHON) -m venv --clear $(LOCKING)
	$(LOCKING)/bin/pip install --quiet uv
	$(LOCKING)/bin/$(COMPILE) --upgrade --extra postgres pyproject.toml -o requirements/runtime.txt
	$(LOCKING)/bin/$(COMPILE) --upgrade --group build -o requirements/build.txt
	$(LOCKING)/bin/$(COMPILE) --upgrade --group demo -o requirements/demo.txt
	$(LOCKING)/bin/$(COMPILE) --upgrade --group installer -o requirements/installer.txt
	$(LOCKING)/bin/$(COMPILE) --upgrade --group dev --extra postgres pyproject.toml -o requirements/dev.txt
	$(LOCKING)/bin/$(COMPILE) --upgrade --group release -o requirements/release.txt
	for python in 3.11 3.12 3.13 3.14; do for machine in x86_64 aarch64; do for lock in requirements/*.txt; do \
		$(LOCKING)/bin/uv pip install --quiet --dry-run --target=$(LOCKING)/none --require-hashes --only-binary=:all: \
			--python-version=$$python --python-platform=$$machine-manylinux_2_28 --requirement=$$lock || exit 1; \
	done; done; done # each has a wheel wherever CI runs
	rm -rf $(LOCKING)
	$(MAKE) $(DEV)
	for folder in demo tests/node; do \
		(cd $$folder && "$(abspath $(BIN))/npm" install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund) || exit 1; \
	done

release-dry-run: $(DEV) $(RELEASE) ## build and check what a release publishes, in dist/; publishes nothing
	$(BIN)/python -m tools.release $(RELEASE_ARGS)

clean: ## remove everything that was installed or cached here
	rm -rf $(VENV) dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	rm -rf tests/node/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment is created again when a lock has changed.
$(RUNTIME): $(addprefix requirements/,runtime.txt build.txt demo.txt installer.txt dev.txt release.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, as $(PYTHON); name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) can't make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@touch $@

$(PACKAGE): pyproject.toml $(RUNTIME)
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Node.js, which is as large as all the rest, only builds the engine.
$(ENGINE): $(addprefix demo/,package-lock.json package.json engine_config.mjs scenarios.mjs) | $(PACKAGE)
	$(INSTALL) --no-cache-dir --no-compile --target=$(NODE) --upgrade --require-hashes -r requirements/demo.txt
	PYTHONPATH=$(NODE) $(BIN)/python -m demo --build
	rm -rf $(NODE)
	@touch $@

$(UV): $(RUNTIME) | $(PACKAGE)
	$(INSTALL) --require-hashes -r requirements/installer.txt
	@touch $@

$(DEV): $(RUNTIME) | $(UV)
	$(INSTALL_FAST) --require-hashes -r requirements/dev.txt
	@touch $@

$(RELEASE): $(RUNTIME) | $(UV)
	$(INSTALL_FAST) --require-hashes -r requirements/release.txt --target=$(VENV)/release --upgrade
	@touch $@
