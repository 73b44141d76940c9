# `make demo` and `make test` are the two commands of the README; `make check` is the one gate.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)

# Tests start Python hundreds of times; without bytecode each start compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Half of their time tests wait for servers, so three processes share two cores; tests that share a
# server stay in one. WORKERS=0 runs them one by one.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(3 * os.cpu_count() // 2)')
PYTEST  := $(BIN)/pytest -n $(WORKERS)
LONG    := airflow or conductor or dask or spark or image or real_pesto or browser

.DEFAULT_GOAL := help
.PHONY: help demo setup test test-all check lint types layers bench docs site schemas pins clean fuzz endurance

help:  ## Show what there is to make.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.base  ## Three services over HTTP, discovered and chained over a Landsat scene.
	@$(BIN)/python examples/demo.py out

setup: $(VENV)/.dev $(VENV)/.tools  ## Everything for working on the project.

test: $(VENV)/.dev $(VENV)/.tools  ## Units, contracts, pages, services and runs on this machine.
	$(PYTEST) -m "not ($(LONG))"

test-all: $(VENV)/.dev $(VENV)/.tools  ## Those, and a real Airflow, Conductor, Dask, Spark, PESTO 1.7.2 and browser.
	$(PYTEST) -m "not endurance"

endurance: $(VENV)/.dev $(VENV)/.tools  ## Tests that take many minutes: an Airflow on several machines, real images, projects.
	$(PYTEST) -n 0 -m endurance

check: $(VENV)/.dev  ## What CI runs.
	@$(MAKE) --no-print-directory -j2 --output-sync types site $(VENV)/.tools lint layers
	@$(MAKE) --no-print-directory test-all

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Benchmarks against peers; writes RESULTS.md into benchmarks/ and its folders.
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.airflow
	$(BIN)/python -m benchmarks.conductor

docs: $(VENV)/.dev  ## The snippets of README and docs, run.
	$(PYTEST) tests/docs

site: $(VENV)/.dev  ## The documentation as a site, in site/; fails on a warning or a dead link.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

schemas: $(VENV)/.dev  ## Write schemas/ anew from the models.
	$(BIN)/python -m pesto_runtime.schema schemas

pins: $(VENV)/.dev  ## Pin what is installed anew: one set of versions that every extra can live with.
	$(COMPILE) --all-extras --group dev -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt -o requirements/base.txt
	printf '%s\n' 'moto[server]>=5.2' 'openapi-python-client>=0.29' 'pygeoapi>=0.21' | $(PIN) - -o requirements/tools.txt
	printf '%s\n' 'apache-airflow-providers-amazon>=9.39' | $(PIN) --no-deps - -o requirements/amazon.txt

fuzz: $(VENV)/.dev  ## Send 10^6 requests to services, from another seed each time.
	FUZZ_BODIES=1000000 FUZZ_SEED=$(shell date +%s) $(BIN)/python -m pytest -q -n 0 tests/contract/test_fuzz.py

clean:  ## Remove what make made.
	rm -rf $(VENV) out dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

PIN := $(BIN)/uv pip compile -q --no-emit-index-url --no-emit-find-links --no-header --universal --python-version 3.11
COMPILE := $(PIN) pyproject.toml

# uv is several times faster than pip; both install the same pins.
ifdef UV
INSTALL := $(UV) pip install -q --python $(BIN)/python
$(VENV)/bin/python:
	$(UV) venv -q --python $(PYTHON) $(VENV)
else
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
endif

$(VENV)/.base: $(VENV)/bin/python requirements/base.txt pyproject.toml
	$(INSTALL) -c requirements/base.txt -e .
	@touch $@

# Two thirds of these files are never imported, so Python compiles those that are.
$(VENV)/.dev: $(VENV)/.base requirements/dev.txt
	$(INSTALL) --no-compile -r requirements/dev.txt
	@touch $@

# Programs that tests run: an S3 server, a generator of clients. They have an environment of their own:
# with boto3, importing rasterio takes 0.7 s more. Airflow's Amazon provider is beside that boto3.
$(VENV)/.tools: $(VENV)/.dev requirements/tools.txt requirements/amazon.txt
	$(BIN)/python -m venv --clear $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install -q --no-compile --disable-pip-version-check -r requirements/tools.txt
	$(VENV)/tools/bin/python -m pip install -q --no-compile --disable-pip-version-check --no-deps -r requirements/amazon.txt
	@touch $@
