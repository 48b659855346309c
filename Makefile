# The door to this project. `make help` lists what it opens.
# A fresh machine needs Python >= 3.11 and make; everything else is installed into this folder.

PYTHON ?= python3
UV_VERSION := 0.13.9
# How the tests are spread. Each process gets databases and key prefixes of its own.
TEST_PROCESSES ?= 2

VENV := .venv
TOOLS := .tools
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# uv installs into our own .venv, with the Python it was made with, and never fetches another.
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never
export NO_MKDOCS_2_WARNING := 1
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format dev bench docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install everything into .venv (nothing to do when it is current)

$(TOOLS)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "PyFlue needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(BIN)/python: | $(TOOLS)/bin/uv
	$(PYTHON) -m venv --without-pip $(VENV)

$(INSTALLED): pyproject.toml uv.lock | $(TOOLS)/bin/uv $(BIN)/python
	$(TOOLS)/bin/uv sync --frozen --quiet --python $(BIN)/python
	@touch $@

demo: setup ## the whole road on this machine: no key, no service; ends by itself
	@$(BIN)/pyflue demo

test: setup ## every test, with coverage; missing servers are started
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadgroup --cov --cov-report=term

check: setup ## format, lint, types, import rules, documentation; warnings are errors
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/basedpyright --warnings
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mkdocs build --strict --quiet

format: setup # rewrite the code in the one format, and the generated parts of the documentation
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/python docs/generate.py

dev: setup ## front, workers and store in one process; reloads on change
	@$(BIN)/pyflue dev

bench: setup ## measure, each number beside its floor
	@$(BIN)/python -m bench

docs: setup ## serve the documentation at 127.0.0.1:8001
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

clean: ## remove everything that was installed or built here
	rm -rf $(VENV) $(TOOLS) site dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache .pyflue
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
