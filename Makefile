# One command per habit, the same by hand and in continuous integration.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m
STAMP := .venv/.stamp
.DEFAULT_GOAL := test
.PHONY: demo test fmt lint types imports unit vectors property sim sim-large integration bench bench-mosquitto fleet fuzz mutants docs plugin proto venv deps system lock check

demo: venv ; @if .ci/system-packages; then $(MAKE) --no-print-directory -s -C plugins/mosquitto; else echo "going on with embedded brokers only"; fi; exec $(BIN)/authd demo
test: deps plugin ; @$(RUN) pytest -n auto --maxprocesses 4 --dist loadscope --ignore=tests/bench --durations=25 --cov=authd.core --cov-fail-under=100
check: lint types imports test
fmt: venv ; $(RUN) ruff check --fix-only -q . ; $(RUN) ruff format -q .
lint: venv ; $(RUN) ruff check . && $(RUN) ruff format --check -q .
types: venv ; $(RUN) mypy
imports: venv ; $(BIN)/lint-imports
unit: deps plugin ; @$(RUN) pytest tests/unit
vectors: deps plugin ; @$(RUN) pytest tests/conformance
property: venv ; @$(RUN) pytest tests/property
sim: venv ; @$(RUN) pytest tests/simulation && $(RUN) tests.simulation --nodes 100 --runs 20
sim-large: venv ; @$(RUN) tests.simulation --nodes 10000 --runs 12 --json sim-large.json
integration: deps plugin ; @$(RUN) pytest tests/integration tests/e2e
bench: venv ; @$(RUN) tests.bench $(BENCH)
bench-mosquitto: deps plugin ; @$(RUN) tests.bench.mosquitto
fleet: venv ; @$(RUN) tests.fleet $(FLEET)
fuzz: venv ; @$(RUN) tests.bench.fuzz --inputs 10000000
mutants: venv ; @nice -n 19 $(RUN) tests.bench.mutants
docs: deps plugin ; @$(RUN) pytest tests/docs
plugin: system ; @$(MAKE) --no-print-directory -s -C plugins/mosquitto
proto: venv ; @sh proto/generate $(BIN)/python
deps: system venv
system: ; @.ci/system-packages tests
venv: $(STAMP)

# Made once from the lock, with hashes; made again when the lock or the metadata change.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo "making .venv from requirements-dev.lock"
	@$(PYTHON) -m venv .venv
	@$(RUN) pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.lock
	@$(RUN) pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# Versions and hashes only: no address and no path of this machine gets into the lock.
LOCK := $(BIN)/uv pip compile -q pyproject.toml --python-version 3.11 --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-emit-build-options
lock: ; $(LOCK) --group dev -o requirements-dev.lock && $(LOCK) -c requirements-dev.lock -o requirements.lock
