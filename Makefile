SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPED := protocol volume operator/sweeprun_operator trainer_entrypoint cli
PYTEST := $(BIN)/python -m pytest
# Arguments for pytest, as in: make test-unit ARGS='-k manifest -x'
ARGS ?=
# How many tests run at once: as many as there are processors, and of those that mostly wait one more; 0: one after another.
CPUS := $(shell nproc 2>/dev/null || echo 2)
UNIT_WORKERS ?= $(CPUS)
INTEGRATION_WORKERS ?= $(shell echo $$(( $(CPUS) + 1 )))

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## the virtual environment in .venv, with pinned packages

# Two calls at once would damage each other's environment: the second waits.
$(INSTALLED): requirements/build.txt requirements/dev.txt pyproject.toml
	@mkdir -p $(VENV); exec 9>$(VENV)/.lock; flock 9; \
	key=$$(cat requirements/build.txt requirements/dev.txt pyproject.toml | sha256sum); \
	if [ "$$(cat $@ 2>/dev/null)" != "$$key" ]; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'; \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/dev.txt; \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	  echo "$$key" > $@; \
	fi; \
	touch $@

.PHONY: lint
lint: install ## style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports
	$(BIN)/vermin --target=3.9- --violations --no-tips --quiet protocol volume trainer_entrypoint
	@if command -v shellcheck >/dev/null; then shellcheck -x hack/*.sh .ci/run; \
	else echo 'skipped: shellcheck is not installed'; fi

.PHONY: generate
generate: install ## write the CRD and the chart's copy from the models, and the documents that code describes
	$(BIN)/python -m sweeprun_operator.api.crd write
	$(BIN)/python -m sweeprun_operator.api.document write
	$(BIN)/python -m sweeprun_cli.document write
	$(BIN)/python hack/documents.py write

.PHONY: verify
verify: install ## generated files are what the models say
	$(BIN)/python -m sweeprun_operator.api.crd check
	$(BIN)/python -m sweeprun_operator.api.document check
	$(BIN)/python -m sweeprun_cli.document check
	$(BIN)/python hack/documents.py check

.PHONY: docs
docs: install ## the documents as a site in site/; a broken link or a page outside the navigation fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: test
test: lint verify docs test-unit test-contract test-integration ## everything that needs no cluster

.PHONY: test-unit
test-unit: install ## pure tests, seconds
	$(PYTEST) tests/unit -n $(UNIT_WORKERS) $(ARGS)

.PHONY: test-contract
test-contract: install ## models, CRD, chart, docs and import rules agree
	$(PYTEST) tests/contract $(ARGS)

.PHONY: test-integration
test-integration: install ## against a real kube-apiserver and etcd, built once where they are not on PATH
	control_plane=$$(hack/control-plane.sh); PATH="$$control_plane:$$PATH" $(PYTEST) tests/integration \
	  -n $(INTEGRATION_WORKERS) --dist loadfile $(ARGS)

.PHONY: bench
bench: install ## speed and memory of validation beside their targets, on a quiet machine (ARGS=torch_files: one subject)
	cd tests && ../$(BIN)/python -m bench $(ARGS)

.PHONY: bench-recovery
bench-recovery: install ## what ten evictions cost beside plain restarts, by phase, on the cluster of e2e-up (ARGS=20: more)
	hack/cluster.sh up
	EVICTIONS=$(or $(ARGS),10) $(PYTEST) tests/e2e/test_recovery_time.py

.PHONY: bench-scale
bench-scale: install ## the operator with thousands of runs on a real API server, long (ARGS='idle --runs 500': one subject, its size)
	control_plane=$$(hack/control-plane.sh); cd tests && PATH="$$control_plane:$$PATH" ../$(BIN)/python -m bench.scale $(ARGS)

.PHONY: damage
damage: install ## how much of seeded damage to checkpoints of every format is found, as a table (ARGS=500: more seeds)
	PYTHONPATH=tests $(BIN)/python -m support.damage $(ARGS)

.PHONY: exactness
exactness: install ## runs that are killed and resumed end as undisturbed ones, bit for bit, hours (ARGS='--runs 200 --journal FILE': goes on)
	cd tests && ../$(BIN)/python -m support.exactness $(ARGS)

.PHONY: faults
faults: install ## every fault at every request of the operator, hours; ARGS=SCHEDULE replays one, ARGS="--shard 1/4 --journal FILE" shares and goes on
	control_plane=$$(hack/control-plane.sh); PATH="$$control_plane:$$PATH" PYTHONPATH=tests $(BIN)/python -m support.faults $(ARGS)

.PHONY: control-plane
control-plane: ## kube-apiserver, etcd and kubectl for the integration tests, found on PATH or built once
	hack/control-plane.sh

.PHONY: demo
demo: install ## a real training run, evicted in the middle, compared with an undisturbed one
	$(BIN)/sweeprun local demo examples/digits/sweeprun.yaml

.PHONY: images
images: ## sweeprun/operator:dev and sweeprun/trainer-example:dev
	hack/images.sh app

.PHONY: e2e-up
e2e-up: ## a cluster of four nodes with training-operator and the operator, left standing
	hack/cluster.sh up

.PHONY: e2e
e2e: install ## the end-to-end tests on that cluster, then teardown (E2E_KEEP=1 keeps it)
	hack/e2e.sh $(ARGS)

.PHONY: e2e-down
e2e-down: ## delete the cluster, stop the container engine if it was started by us
	hack/cluster.sh down
	hack/docker.sh stop

.PHONY: lock
lock: ## renew the pinned requirements (ARGS=--upgrade for newer versions); needs uv
	hack/lock.sh $(ARGS)

.PHONY: clean
clean: ## remove what was made in this folder; the cache in ~/.cache/sweeprun stays
	rm -rf $(VENV) artifacts build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
