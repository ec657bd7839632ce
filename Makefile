# densnet: `make` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint

VENV ?= .venv
TORCH ?= torch==2.13.0
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done

help: ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.11] [TORCH=\"torch==2.13.0 and any pip options\"] [VENV=.venv]"
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  %-7s %s\n", $$1, $$2}'

setup: $(STAMP) ## create the virtual environment and install densnet with exact tested versions

demo: $(STAMP) ## water from nothing to an infrared spectrum: demo/ir.png and demo/report.json
	$(RUN) -m densnet.demo

test: $(STAMP) ## run the tests, two at a time
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

lint: $(STAMP) ## ruff and pyright
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

# Done once; again when the versions change. A torch that is already in the environment stays, unless TORCH is given.
$(STAMP): requirements.lock pyproject.toml
	@for python in $(PYTHON) $(if $(PYTHON),,python3.11 python3.12 python3.13 python3); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: no Python 3.11 or newer with venv found; install one (Debian: python3.11 python3.11-venv) or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	[ -x $(RUN) ] || "$$found" -m venv $(VENV)
ifeq ($(origin TORCH),file)
	@$(RUN) -c 'import torch' 2>/dev/null || $(RUN) -m pip install $(TORCH)
else
	$(RUN) -m pip install $(TORCH)
endif
	$(RUN) -m pip install -r requirements.lock
	$(RUN) -m pip install --no-deps --no-build-isolation -e .
	@touch $@
