# Each target makes what it needs. PIP_* variables of your shell reach pip as they are.
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

.PHONY: demo test test-all test-lowest test-newest faults bench lint check-diffusers format dist clean

demo: $(VENV)/.ready
	$(BIN)/fastddpm train

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest

test-all: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m "slow or not slow"

# The same on the lower ends of pyproject.toml's ranges, and on the newest releases that pip finds.
test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=/dev/null

# Every fault of docs/reliability.md, injected: also those by the hundred.
faults: $(VENV)/.ready-test
	FAULTS=full $(BIN)/python -m pytest -m fault

# What fits this machine: prints pass or FAIL for what must be reached, and writes dated records to benchmarks/results.
bench: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks

lint: $(VENV)/.ready-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# diffusers' own test suites, unchanged, on our classes. They are in its source only: git clone huggingface/diffusers
check-diffusers:
	@test -d "$(DIFFUSERS_SRC)/tests" || { echo "check-diffusers: not run: DIFFUSERS_SRC is '$(DIFFUSERS_SRC)', wanted a source checkout of diffusers: make check-diffusers DIFFUSERS_SRC=path/to/diffusers" >&2; exit 2; }
	$(MAKE) $(VENV)/.ready-suites
	DIFFUSERS_SRC="$(DIFFUSERS_SRC)" $(BIN)/python -m pytest -o addopts= -W ignore -ra tests/diffusers_suite.py

format: $(VENV)/.ready-lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f'fastddpm needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}; name another one: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.ready-test: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e ".[test]"
	touch $@ $(VENV)/.ready

$(VENV)/.ready-lint: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e ".[lint]"
	touch $@ $(VENV)/.ready

$(VENV)/.ready-suites: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e ".[test,suites]"
	touch $@ $(VENV)/.ready $(VENV)/.ready-test

# The source distribution and the wheel, looked at by twine; the wheel is tried in an environment of its own, outside.
dist: $(VENV)/bin/python
	$(BIN)/python -m pip install -c $(CONSTRAINTS) build twine
	rm -rf dist build
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	.ci/try-wheel dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info
