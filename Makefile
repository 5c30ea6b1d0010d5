# make demo: the main job on phantoms.   make test: checks and tests.   make bench: measurements.
# make chaos: processes killed, disks filled, servers stopped, and every instance accounted for.
# make fuzz: hostile bytes through the parsers and through sockets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench chaos fuzz check clean

demo: $(VENV)/.worker
	$(BIN)/reticula demo --dir reticula-demo

test: $(VENV)/.test check
	$(BIN)/pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.test
	$(BIN)/pytest tests/benchmarks -s --numprocesses 0 --override-ini "norecursedirs=.*" --table docs/benchmarks.md

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz $(FUZZ)

chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos $(CHAOS)

# A checkout that was moved leaves an environment that does not work: it is made anew.
$(VENV)/.python: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Reticula needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

# What the worker needs, and no more: no torch.
$(VENV)/.worker: pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.worker

clean:
	rm -rf $(VENV) reticula-demo
