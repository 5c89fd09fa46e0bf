# Everything happens in .venv; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses 4 --dist loadgroup
.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster cluster cluster-down test test-fast test-unit test-faults lint bench

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 16

.venv/installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here: name one with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[mlflow]'
	touch $@

.venv/developing: .venv/installed pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/installed ## run the example on this machine, on MLflow's default sqlite store, and show what it logged
	$(BIN)/mlflow run examples/diabetes --backend compute -P alpha=0.5
	$(BIN)/python examples/show_last_run.py

cluster: .venv/installed ## a Kubernetes here with a tracking server; then: . .cluster/env
	$(BIN)/python -m tests.cluster up

cluster-down: .venv/installed ## stop it
	$(BIN)/python -m tests.cluster down

demo-cluster: cluster ## run the example on it and show what it logged
	. .cluster/env && $(BIN)/mlflow run examples/diabetes --backend compute --backend-config '{"COMPUTE": "dev-cluster"}' -P alpha=0.5
	. .cluster/env && $(BIN)/python examples/show_last_run.py

test: .venv/developing lint ## lint, unit and integration tests, on a real MLflow server and a real cluster; about ten minutes
	$(BIN)/python -m tests.cluster up || test -z "$$CI"
	$(BIN)/python -m pytest -m "not fault" $(PARALLEL) --durations=15

test-fast: .venv/developing lint ## the same without a cluster
	$(BIN)/python -m pytest -m "not fault and not cluster" $(PARALLEL)

test-faults: .venv/developing ## what can go wrong, made to go wrong on a real cluster, a test at a time; writes docs/faults.md
	$(BIN)/python -m tests.cluster up || test -z "$$CI"
	$(BIN)/python -m pytest tests/faults --faults-table docs/faults.md

test-unit: .venv/developing ## what needs neither: seconds
	$(BIN)/python -m pytest -q tests/unit

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/developing ## the measurements of benchmarks/README.md, some minutes
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.environments
	$(BIN)/python -m benchmarks.supervision
	$(BIN)/python -m benchmarks.builtin_faults
