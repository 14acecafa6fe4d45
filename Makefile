# `make help` lists the targets. Everything runs from .venv, which `make setup` builds once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.i2l-installed
PYTEST_ARGS ?=
# At most 4: each process has a Ray of its own. More than cores gain nothing. 0 runs all in one, for
# --pdb.
TEST_PROCESSES ?= logical
# By file, in order, since the tests of a file share what is slow to make.
PARALLEL := -n $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CODE := i2l_model jobs pipelines tests

.DEFAULT_GOAL := help
.PHONY: help setup quickstart browser test test-fast checks format bench clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(STAMP)  ## create .venv with the package and the development tools

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

quickstart: setup  ## run the whole workflow on this machine with the tiny backbone
	$(BIN)/i2l run --recipe quickstart

test: setup browser  ## run all tests that need no GPU
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

browser: setup  # Chromium for the test of the demo page, the system's or one of its own
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
		|| $(BIN)/playwright install chromium

test-fast: setup  ## run the tests that are not marked slow
	$(BIN)/python -m pytest $(PARALLEL) -m 'not gpu and not slow' $(PYTEST_ARGS)

checks: setup  ## lint, formatting, types, import contracts, spelling
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: setup  ## apply the formatter and the automatic lint fixes
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: setup  ## run the benchmarks; they print what they measure
	$(BIN)/python -m pytest tests/benchmarks -s -m 'not gpu' --timeout=0 $(PYTEST_ARGS)

clean:  ## remove the environment, caches and build output (keeps workspaces)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
