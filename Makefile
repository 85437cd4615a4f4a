# Needs: make, Python >= 3.11 with its venv module, a C library. Everything else is installed into .venv.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# the first Python on the path that is new enough; `make PYTHON=/path/to/python` overrides
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCK := $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --strip-extras --custom-compile-command 'make lock'
OURS := pyproject.toml requirements/build.in
# the whole suite's bound, in seconds; each test has its own (pyproject.toml)
TEST_TIMEOUT_S := 3000

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs native bench faults lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed-local ## embedded Kafka, simulated feed, bridge and worker, with a dashboard; Ctrl-C ends it
	@$(BIN)/streamapp demo $(DEMO)

test: lint ## lint, types, import rules, then every test; pass options to pytest with ARGS=
	$(BIN)/python -m pytest --session-timeout=$(TEST_TIMEOUT_S) $(ARGS)

lint: $(VENV)/.installed-dev ## ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev ## write docs/reference.md again from the code
	$(BIN)/python docs/generate_reference.py

native: $(VENV)/.installed-dev ## build the native library again, after a change in native/
	$(BIN)/python hatch_build.py

bench: $(VENV)/.installed-dev ## measure; pass options with ARGS=
	$(BIN)/python -m benchmarks $(ARGS)

faults: $(VENV)/.installed-dev ## break everything, seed after seed, until Ctrl-C; pass options with ARGS=
	$(BIN)/python -m tests.faults $(ARGS)

lock: $(VENV)/.installed-dev ## compile requirements/*.txt again; UPGRADE=--upgrade takes newer versions
	$(LOCK) $(OURS) $(UPGRADE) --extra local --extra dev -o requirements/dev.txt
	$(LOCK) $(OURS) -c requirements/dev.txt --extra local -o requirements/local.txt
	$(LOCK) $(OURS) -c requirements/dev.txt -o requirements/base.txt
	$(LOCK) requirements/langchain-agent.in $(UPGRADE) -o requirements/langchain-agent.txt
	! command -v npm > /dev/null || npm run --silent --prefix tests/fakes/oidc lock

clean: ## remove what was built or cached, the environment and local state included
	rm -rf $(VENV) native/target streamapp/columns/_native.so .streamapp .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 with venv and ensurepip on the path; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# dev.txt holds all of local.txt at the same versions, so that the two can share one environment
$(VENV)/.installed-local $(VENV)/.installed-dev: $(VENV)/.installed-%: requirements/%.txt pyproject.toml hatch_build.py native/Cargo.toml $(wildcard native/src/*.rs) | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/$*.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@# pip compiles what it installs, but nothing that is editable: the first start would
	$(BIN)/python -m compileall -q streamapp
	@touch $@
