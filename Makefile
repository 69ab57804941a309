# TaskForge's commands. Each makes the virtual environment it needs by itself.

# Any Python from 3.11 on; set PYTHON to choose another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; \
	done)
# More arguments for the command that a target runs, as in: make test ARGS="-k lease"
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# buf starts its plugins by name, so they must be the venv's.
BUF := PATH="$(CURDIR)/$(BIN):$$PATH" buf
BASELINE := protos/baseline.binpb
# What `make generate` owns below generated/.
STUBS := taskforge buf

.DEFAULT_GOAL := help
.PHONY: help demo test check generate dev bench bench-peers baseline lock setup

help: ## Print these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Watch real work go through the system: queues, workers, a killed worker, checked results
	@$(BIN)/taskforge demo $(ARGS)

dev: $(READY) ## Run Postgres and the three services in this terminal
	@$(BIN)/taskforge dev $(ARGS)

test: $(READY) ## Run the tests on a real Postgres (the embedded one, or that of TASKFORGE_DATABASE_URL)
	$(BIN)/pytest -n auto $(ARGS)

bench: $(READY) ## Measure how fast all of it is, what the rules cost, and what a noisy tenant does to others
	$(BIN)/taskforge bench $(ARGS)
	$(BIN)/python -m tests.benchmarks.rules
	$(BIN)/python -m tests.benchmarks.tenants

bench-peers: $(READY) ## Measure it beside pgqueuer, graphile-worker and pg-boss, which it installs into folders of their own
	@$(BIN)/python -m tests.benchmarks.peers $(ARGS)

check: $(READY) ## Check style, types, imports, the contract, and that generated/ is fresh
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BUF) lint
	$(BUF) format --path protos/taskforge -d --exit-code
	$(BUF) breaking --against $(BASELINE)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(BUF) generate -o "$$fresh" && \
	for part in $(STUBS); do \
		diff -r -x __pycache__ "generated/$$part" "$$fresh/generated/$$part" || \
		{ echo "generated/$$part differs from protos/: run make generate" >&2; exit 1; }; \
	done && echo "generated/ is fresh"

generate: $(READY) ## Make generated/ from protos/
	rm -rf $(STUBS:%=generated/%)
	$(BUF) generate

baseline: $(READY) ## Declare the present contract the one that `make check` keeps compatible
	$(BUF) build --path protos/taskforge --exclude-source-info -o $(BASELINE)

lock: ## Pin the dependencies anew (ARGS=--upgrade takes newer versions of all)
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" && \
	"$$tools/bin/pip" install --quiet uv && \
	"$$tools/bin/uv" pip compile pyproject.toml --extra bench --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --quiet $(ARGS) -o requirements.lock && \
	sed -i '1i # Exact versions and hashes of all that TaskForge runs on and is built with: see `make lock`.' \
		requirements.lock

setup: $(READY) ## Make the virtual environment only

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "TaskForge needs Python 3.11 or later" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || rm -rf $(VENV)
	@# Debian splits ensurepip from Python: without it, the base Python's pip fills the venv.
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi && \
	echo "Installing the locked packages into $(VENV)" && \
	$$pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	$$pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
