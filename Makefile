# Everything here runs on a bare machine with Python 3.11 or newer and nothing else.
#   make demo        install, run the whole benchmark of config.yaml, say where the report lies
#   make test        install, run the fast tests
#   make test-slow   the slow tests, with a real run of a tiny workflow among them
#   make check       formatters, linters, types, import layers, generated docs, all tests
#   make clean       remove caches, the environment and the run `demo`; other runs stay
# Options: EXTRA=gpu (faiss on CUDA), CORES=4, VENV=path, PYTHON=python3.12,
#   WORKERS=4 (test processes), SNAKEMAKE_FLAGS="--resources gpu=4",
#   LOCK= (newest releases that pyproject.toml admits, not those of requirements.lock).

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

EXTRA ?= cpu
CORES ?= all
WORKERS ?= auto
VENV ?= .venv
LOCK ?= requirements.lock
SNAKEMAKE_FLAGS ?=
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(EXTRA)
OTHER_EXTRA := $(if $(filter gpu,$(EXTRA)),cpu,gpu)
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

ifeq ($(filter $(EXTRA),cpu gpu),)
$(error EXTRA is '$(EXTRA)'; choose cpu or gpu)
endif

# One thread a process: results do not depend on the number of cores, processes do not crowd each other.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
# No test fetches anything from a model hub.
test test-slow check: export HF_HUB_OFFLINE := 1

.PHONY: help install demo test test-slow check lint clean lock
.DEFAULT_GOAL := help

help:
	@sed -n '2,9p' Makefile | sed 's/^# \{0,1\}//'

install: $(READY)

$(BIN)/python:
	@set -e; chosen=''; \
	for name in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  if $$name -c '$(SUITABLE)' >/dev/null 2>&1; then chosen=$$name; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "make: no suitable interpreter among: $(or $(PYTHON),python3.13 python3.12 python3.11 python3)." \
	    "Install Python 3.11 or newer with its venv module (Debian, Ubuntu: apt-get install python3-venv)," \
	    "or name one: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$chosen --version) ($$chosen)"; \
	$$chosen -m venv $(VENV)

# The stamp is older than pyproject.toml or the lock file only when one of them changed.
# faiss-cpu and faiss-gpu own the same folder: the other one has to go first.
$(READY): pyproject.toml $(LOCK) | $(BIN)/python
	@echo "Installing attrib-core[$(EXTRA),slurm,dev] into $(VENV) (minutes the first time)"
	@if [ -e $(VENV)/.ready-$(OTHER_EXTRA) ]; then \
	  $(BIN)/python -m pip uninstall --quiet --yes faiss-cpu faiss-gpu; rm -f $(VENV)/.ready-$(OTHER_EXTRA); fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCK),--constraint $(LOCK)) \
	  --editable '.[$(EXTRA),slurm,dev]'
	@touch $@

demo: install
	@$(BIN)/snakemake --cores $(CORES) $(SNAKEMAKE_FLAGS)
	@echo "The report: $(CURDIR)/results/$$(sed -n 's/^run: *\([^ #]*\).*/\1/p' config.yaml)/report/index.html"

# Each worker begins with tests that stand together, so that few fixtures of a file are made twice.
test: install
	@$(BIN)/python -m pytest -m 'not slow and not gpu' -n $(WORKERS) --dist worksteal $(PYTEST_FLAGS)

# One process: the slow tests start a workflow, which fills the cores by itself.
test-slow: install
	@$(BIN)/python -m pytest -m 'slow and not gpu' $(PYTEST_FLAGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m attrib_core docs --check

check: lint test test-slow

# What is installed becomes the lock file; both faiss wheels are named, either is installed.
lock: $(READY)
	@{ sed -n '/^#/p;/^#/!q' requirements.lock; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | grep -v -i -E '^(pip|setuptools|wheel|faiss-(cpu|gpu))=='; \
	  version=$$($(BIN)/python -c 'import faiss; print(faiss.__version__)'); \
	  echo "faiss-cpu==$$version"; echo "faiss-gpu==$$version"; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock; touch $(READY)

clean:
	rm -rf .snakemake .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info
	rm -rf results/demo $(VENV)
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
