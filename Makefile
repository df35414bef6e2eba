# Everything a checkout can do. Needs make and Python 3.11 or newer, nothing else.

DATA ?= segue-data
PORT ?= 8000
VENV ?= .venv
# The newest of the versions we test, else whatever python3 is; it must be 3.11 or newer and able to make environments.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECKED := $(VENV)/.installed-for-checks
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# An option, if the variable comes from whoever calls make and not from above.
given = $(if $(filter command environment,$(firstword $(origin $(1)))),$(2) "$($(1))")

# More than two cores need, because many tests wait. Each takes at most 600 MB.
WORKERS := --numprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help run demo demo-web test test-fast nightly fmt check migrate bench durability openapi snippet clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo "  DATA=directory of the embedded PostgreSQL ($(DATA))   PORT=port ($(PORT))   DATABASE_URL=another PostgreSQL"

run: $(INSTALLED) ## Serve on 127.0.0.1, with the embedded PostgreSQL unless DATABASE_URL is set
	@SEGUE_DATA_DIR="$(DATA)" SEGUE_PORT="$(PORT)" exec $(BIN)/segue serve

demo: $(CHECKED) ## Import the CDNOW purchases through a stock SDK and compare with the published figures
	@$(BIN)/python -m examples.cdnow

demo-web: $(CHECKED) ## Open a shop on a free port, with a panel that says stage, segments, why and until when
	@exec $(BIN)/python -m examples.demo_shop $(call given,DATA,--data) $(call given,PORT,--port) $(call given,SHOP_PORT,--shop-port)

test: $(CHECKED) ## Run the tests; ARGS="-k name" picks some
	@$(BIN)/python -m tests.browser.chromium
	@$(BIN)/python -m pytest $(WORKERS) --durations 30 --durations-min 1 $(ARGS)

test-fast: $(CHECKED) ## Run the tests that need neither PostgreSQL nor a browser, with fewer random cases
	@SEGUE_TEST_CASES=$${SEGUE_TEST_CASES:-0.1} $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m pure $(ARGS)

nightly: $(CHECKED) ## The random rules against the naive reading, fifty times as many as make test tries
	@SEGUE_TEST_CASES=50 $(BIN)/python -m pytest -q tests/rules tests/projection/test_project_against_reference.py tests/projection/test_random_rules.py

fmt: $(CHECKED) ## Repair what ruff can repair, and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: $(CHECKED) ## Lint, types, import contract, OpenAPI and snippet up to date, style, docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m app.openapi --check
	@$(BIN)/python -m app.browser.build --check
	@$(BIN)/python -m pytest -q tests/style tests/docs

migrate: $(INSTALLED) ## Bring the database to the current schema; starts the embedded PostgreSQL unless DATABASE_URL is set
	@SEGUE_DATA_DIR="$(DATA)" exec $(BIN)/segue migrate

bench: $(CHECKED) ## Measure: ratios from one run
	@$(BIN)/python -m bench

durability: $(CHECKED) ## Kill the server and PostgreSQL again and again, longer than the tests do
	@$(BIN)/python -m bench.durability

openapi: $(INSTALLED) ## Write openapi/openapi.json from the code
	@$(BIN)/python -m app.openapi

snippet: $(CHECKED) ## Build the browser snippet
	@$(BIN)/python -m app.browser.build

clean: ## Remove the environment and caches; the data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Under root PostgreSQL runs as another user, who must be able to read its programs: hence the umask.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Segue needs Python 3.11 or newer, and found none ($$(python3 --version 2>&1))." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@umask 022; $(PYTHON) -m venv $(VENV) >$(VENV).log 2>&1 || { \
		cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
		echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@rm -f $(VENV).log

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@umask 022; $(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(CHECKED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV), with what tests and checks need ..."
	@umask 022; $(PIP) install --constraint constraints.txt --editable '.[test,check]'
	@touch $(INSTALLED) $@
