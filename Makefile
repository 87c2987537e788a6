# Everything runs from .venv, which `make setup` builds from pyproject.toml and constraints.txt.
# All it takes is make and a Python of 3.11 or newer; PYTHON=... names one where none of the usual names is right.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTHON ?=
ARGS ?=
# Processes that run tests side by side, each with servers of its own; 0: this one alone, as a debugger wants it.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1

.DEFAULT_GOAL := help
.PHONY: help setup run bench test test-long promises lint proto docs

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP) ## .venv with Pemba and everything that works on it

$(STAMP): pyproject.toml constraints.txt
	@set -e; found=; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python of 3.11 or newer with the venv module on PATH; name one: make setup PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	[ -x $(BIN)/pip ] || $$found -m venv $(VENV); \
	echo "installing into $(VENV) ..."; \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[server,dev-stack,bench,test]'
	@touch $@

run: setup ## a whole Pemba on this machine; ARGS="--grpc-port 0 ..." passes on to `pemba dev`
	@exec $(BIN)/pemba dev $(ARGS)

bench: setup ## Pemba beside SpiceDB asked directly; ARGS="--json FILE" passes on to `pemba bench`
	$(BIN)/pemba bench $(ARGS)

test: lint ## lint, then every test that is not marked long; ARGS="tests/unit -k slug" passes on to pytest
	$(PYTEST) -m "not long" $(ARGS)

test-long: lint ## lint, then every test
	$(PYTEST) $(ARGS)

promises: setup ## what Pemba promises, and the test of each
	@$(BIN)/python -m tests.e2e.rows

lint: setup ## style, types, import table, protos and the drift of what is generated from them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/check.sh

proto: setup ## generate src/pemba/v1 from proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh

docs: setup ## generate docs/settings.md from src/pemba/config.py
	$(BIN)/python docs/generate.py
