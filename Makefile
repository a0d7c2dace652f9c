# The lab's commands; `make` alone lists them. Every one makes .venv first where it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## real flowers of the kept models (results/first_look/), then a tiny run on built-in data (results/quickstart/)
	$(BIN)/python -m experiments.first_look
	$(BIN)/python -m experiments.quickstart

test: $(READY) ## the fast tests, offline
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test-slow: $(READY) ## the slow tests, and those on Oxford 102 where FLOWERS102_ROOT is set
	$(BIN)/python -m pytest -m "slow or real_data"

lint: $(READY) ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove .venv and the tools' caches; data and results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find lab experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
