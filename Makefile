# Development commands. Requires only make and Python 3.11 or newer.

DATA ?= segue-data
PORT ?= 8000
VENV ?= .venv
# python3 if it is 3.11 or newer, else the newest tested version; it must be able to create virtual environments.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECKED := $(VENV)/.installed-for-checks
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The option $(2) with the value of variable $(1), if the caller set it on the command line or in the environment.
given = $(if $(filter command environment,$(firstword $(origin $(1)))),$(2) "$($(1))")

# More workers than cores, because many tests wait. A worker uses at most 600 MB.
WORKERS := --numprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help run demo demo-web test test-fast hostile nightly fmt check migrate bench durability openapi snippet clean

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo "  DATA=data directory ($(DATA))   PORT=port ($(PORT))   DATABASE_URL=external PostgreSQL (default: embedded)"

run: $(INSTALLED) ## Run Segue on 127.0.0.1, with the embedded PostgreSQL unless DATABASE_URL is set
	@SEGUE_DATA_DIR="$(DATA)" SEGUE_PORT="$(PORT)" exec $(BIN)/segue serve

demo: $(CHECKED) ## Import real purchases with a Segment SDK and compare with published figures
	@$(BIN)/python -m examples.cdnow

demo-web: $(CHECKED) ## Run a demo shop with a panel that explains stage and segments
	@exec $(BIN)/python -m examples.demo_shop $(call given,DATA,--data) $(call given,PORT,--port) $(call given,SHOP_PORT,--shop-port)

test: $(CHECKED) ## Run all tests; ARGS="-k name" selects some
	@$(BIN)/python -m tests.browser.chromium
	@$(BIN)/python -m pytest $(WORKERS) --durations 30 --durations-min 1 $(ARGS)

test-fast: $(CHECKED) ## Run the tests that need no PostgreSQL and no browser, with fewer random cases
	@SEGUE_TEST_CASES=$${SEGUE_TEST_CASES:-0.1} $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m pure $(ARGS)

hostile: $(CHECKED) ## Attack a running server, and print its memory and latency
	@$(BIN)/python -m pytest -q -m hostile tests/hostile $(ARGS)

nightly: $(CHECKED) ## Compare random rules with the reference evaluation, 50 times as many as make test
	@SEGUE_TEST_CASES=50 $(BIN)/python -m pytest -q tests/rules tests/projection/test_project_against_reference.py tests/projection/test_random_rules.py

fmt: $(CHECKED) ## Fix lint errors where possible, and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: $(CHECKED) ## Run lint, type, import, generated file, style and docs checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m app.openapi --check
	@$(BIN)/python -m app.browser.build --check
	@$(BIN)/python -m pytest -q tests/style tests/docs

migrate: $(INSTALLED) ## Migrate the database (the embedded PostgreSQL unless DATABASE_URL is set)
	@SEGUE_DATA_DIR="$(DATA)" exec $(BIN)/segue migrate

bench: $(CHECKED) ## Run the benchmarks
	@$(BIN)/python -m bench

durability: $(CHECKED) ## Kill server and PostgreSQL under load, longer than the tests do, and check the data
	@$(BIN)/python -m bench.durability

openapi: $(INSTALLED) ## Write the documents in openapi/ from the code
	@$(BIN)/python -m app.openapi

snippet: $(CHECKED) ## Build the browser snippet
	@$(BIN)/python -m app.browser.build

clean: ## Remove the virtual environment and caches, not the data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# As root, PostgreSQL runs as another user, who must be able to read its programs. The umask allows that.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Segue needs Python 3.11 or newer; found: $$(python3 --version 2>&1)." >&2; \
		echo "Install it, or set its path: make PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@umask 022; $(PYTHON) -m venv $(VENV) >$(VENV).log 2>&1 || { \
		cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
		echo "$(PYTHON) cannot create a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@rm -f $(VENV).log

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@umask 022; $(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(CHECKED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV), with test and check dependencies ..."
	@umask 022; $(PIP) install --constraint constraints.txt --editable '.[test,check]'
	@touch $(INSTALLED) $@
