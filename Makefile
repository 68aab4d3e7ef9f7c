PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-faults test-faults-all test-cluster test-cluster-all chaos bench bench-full dashboards lint

install: .venv/installed  ## make .venv from requirements.lock; nothing where that is up to date

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: install  ## draw phantom X-rays, train on them, register and export the detector
	$(BIN)/python -m ray_jobs.dataset.phantom --out datasets/phantoms
	$(BIN)/python -m ray_jobs.train --config config/demo.yaml --data datasets/phantoms/data.yaml

test: install
	$(BIN)/python -m pytest --ignore=tests/cluster --ignore=tests/faults

test-faults: install  ## hurt real runs and compare them with one that nothing happened to; mounts a small disk, so as root
	$(BIN)/python -m pytest tests/faults -m "not long"

test-faults-all: install  ## also those that take longer
	$(BIN)/python -m pytest tests/faults

chaos: install  ## a random schedule of faults against training on three containers; CHAOS="--seed 7 --minutes 30"
	bash .ci/cluster.sh $(BIN)/python -m tests.faults.chaos $(CHAOS)

test-cluster: install  ## the environments on a real Docker engine (.ci/cluster.sh installs what that needs)
	$(BIN)/python -m pytest tests/cluster -m "not long"

test-cluster-all: install  ## also the trigger service, backup and restore, and every query of every panel under live jobs
	$(BIN)/python -m pytest tests/cluster

bench: install  ## every comparison with plain Ultralytics that this machine can run, under 50 minutes on two cores
	$(BIN)/python benchmarks/run.py

bench-full: install  ## the same at full size: hours
	$(BIN)/python benchmarks/run.py --full

dashboards: install  ## write grafana/dashboards/*.json from grafana/*.py
	$(BIN)/python -m grafana.build

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
