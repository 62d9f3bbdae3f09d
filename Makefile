# make run    the gateway on a simulated netrunner, on http://127.0.0.1:8081
# make test   every test
# make check  ruff, mypy --strict, and every test with coverage
# make bench  the benchmarks, all as ratios with their bars (ARGS=--help; ARGS="status latency" for some)
# make soak   the long versions: faults, kills, hostile peers, a million calls (twenty minutes)
# make fuzz   coverage-guided fuzzing of every decoder, ten million inputs (ARGS=--help)
# make debug-run     every test with event loops in debug mode: none may be held up or leave a task behind
# make every-python  the tests on each of Python 3.11 to 3.14, with the newest and the lowest dependencies (ARGS=--help)
# make lock   write requirements*.lock anew; ARGS=--upgrade for newer versions
# make help   this

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/uv/bin/uv

.PHONY: help run test check lint format bench soak fuzz debug-run every-python openapi settings lock clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say where it is (make PYTHON=/path/to/python3)"; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) can't make a virtual environment: on Debian and Ubuntu, apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/.run: $(BIN)/python pyproject.toml
	@echo "Installing the gateway (a minute, once)"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing the development tools (a minute, once)"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

run: $(VENV)/.run
	@$(BIN)/zap-gateway dev $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tools.run_tests $(COVERAGE))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(MAKE) test COVERAGE="--cov=zapcore --cov-report=term --cov-fail-under=95"

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m benchmarks.streams)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest --long -s tests/faults tests/hostile $(ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(ARGS)

debug-run: $(VENV)/.dev
	$(BIN)/python -m pytest --debug-loop $(ARGS)

every-python: $(BIN)/python $(UV)
	$(BIN)/python -m tools.every_python --uv $(UV) $(ARGS)

openapi: $(VENV)/.run
	$(BIN)/zap-gateway openapi > openapi/openapi.json

settings: $(VENV)/.run
	$(BIN)/python -m tools.settings_table

$(UV): $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip install --quiet uv
	@touch $@

LOCK = $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command 'make lock' $(ARGS)

lock: $(UV)
	$(LOCK) --all-extras --output-file requirements.lock pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(LOCK) --output-file requirements-build.lock -

clean:
	rm -rf $(VENV) .every-python .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
