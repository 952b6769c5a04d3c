# Everything a newcomer needs: `make run` and `make test` work on a fresh machine with Python 3.11 and Node 20.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(wildcard plugins/*)
STAMP := .venv/.installed
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2)
NODE_STAMPS := $(addsuffix /node_modules/.installed,tests/e2e/node docs/examples/connector-node)

.PHONY: help setup run test test-long lint format protos docs bench soak

help:  ## Shows this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[author,embedded,spark]' $(addprefix --editable ./,$(PLUGINS)) --group dev
	touch $@

%/node_modules/.installed: %/package.json %/package-lock.json
	npm ci --prefix $* --ignore-scripts --no-audit --no-fund --silent
	touch $@

setup: $(STAMP) $(NODE_STAMPS)  ## Makes .venv and installs everything that run and test need

run: $(STAMP)  ## Starts all of Headrace on this machine and plays the demo shop, until Ctrl-C
	$(BIN)/headrace demo

# Else each process of the tests, and there are hundreds, compiles what it loads.
test test-long: export PYTHONDONTWRITEBYTECODE :=

test: setup  ## Runs the test suite on real embedded stores, but for what is marked as long
	@# More workers than processors: tests wait about half of their time. Files in their own order: the long ones with few
	@# tests come before the many short ones, and not at the end, alone.
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not long"

test-long: setup  ## Runs what takes long: kills of replicas, chaos, platforms of their own
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m long

lint: $(STAMP)  ## Checks style, types, imports, dependencies and protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	scripts/check_breaking.sh
	scripts/gen_protos.sh --check
	$(BIN)/python scripts/check_files.py
	$(BIN)/python scripts/gen_docs.py --check

format: $(STAMP)  ## Formats Python and protos
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

protos: $(STAMP)  ## Generates src/headrace/api from protos/
	scripts/gen_protos.sh

docs: $(STAMP)  ## Writes the reference pages that are made from the code
	$(BIN)/python scripts/gen_docs.py

bench: $(STAMP)  ## Measures throughput and latency; prints a table, writes bench-results/*.json
	$(BIN)/python -m tests.benchmarks

soak: $(STAMP)  ## Long chaos run: kills services and stores at random for an hour under load
	$(BIN)/python -m tests.chaos --minutes 60
