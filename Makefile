# Everything runs from .venv, which the first target that needs it makes.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup bench quick test check smoke report methods perf clean distclean

PYTHON ?= python3 python3.13 python3.12 python3.11
SUITE ?= auto
RESULTS ?= results/cpu
JOBS ?= 2
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --no-input
GPU := /dev/nvidia0

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv with what running needs, pinned (once; two minutes)
	@:

# An interrupted set-up has no stamp and starts over; a newer lock updates the environment in place.
.venv/.ready: requirements.lock pyproject.toml
	@for python in $(PYTHON); do \
	    "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1 && break || python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "setup needs Python 3.11 or newer with venv, tried: $(PYTHON);" \
	        "name one with: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	[ -e $@ ] || rm -rf .venv; \
	rm -f $@; \
	echo "setting up .venv with $$("$$python" --version); this takes a few minutes"; \
	[ -x $(BIN)/python ] || "$$python" -m venv .venv; \
	$(PIP) -c requirements.lock torch; \
	$(PIP) --no-deps -r requirements.lock; \
	$(PIP) --no-deps --no-build-isolation -e .; \
	touch $@

# What tests, linters and `make perf` need beside it.
.venv/.dev: .venv/.ready requirements-dev.lock
	@echo "adding to .venv what developing needs"
	@$(PIP) --no-deps -r requirements-dev.lock
	@touch $@

bench: setup ## Train every method, write the report; SUITE=cpu|gpu|..., ARGS='key=value ...'
	@suite=$(SUITE); \
	if [ "$$suite" = auto ]; then \
	    cuda=$$($(BIN)/python -c 'import torch; print(torch.cuda.is_available())'); \
	    if [ "$$cuda" = True ]; then suite=gpu; else suite=cpu; fi; \
	    if [ $$suite = cpu ] && [ -e $(GPU) ]; then \
	        echo "bench: there is a GPU ($(GPU)), but PyTorch cannot use it (see nvidia-smi for the" \
	            "driver); to train on the CPU all the same: make bench SUITE=cpu" >&2; \
	        exit 1; \
	    fi; \
	fi; \
	$(BIN)/growbench run "$$suite" $(ARGS)

quick: .venv/.dev ## Run the tests that are not slow, in under two minutes; ARGS='-k name'
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadgroup -m 'not slow' $(ARGS)

test: .venv/.dev ## Run every test; ARGS='-k name' for some of them
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: .venv/.dev ## Format, lint, types and import layers; changes nothing
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

smoke: setup ## The whole path on a tiny suite, from nothing, in under two minutes
	@rm -rf results/local/smoke .growbench/smoke
	@$(BIN)/growbench run smoke run.cache=.growbench/smoke $(ARGS)

report: setup ## Render the report from its records; RESULTS=results/cpu
	@$(BIN)/growbench report $(RESULTS)

methods: setup ## Measure every method and write docs/methods.md; ARGS=--check
	@$(BIN)/python -m tools.methods_page $(ARGS)

perf: .venv/.dev ## Speed of training, growth, reports, scheduling; writes results/perf.md; ARGS=--quick
	@$(BIN)/python -m tools.perf.page $(ARGS)

clean: ## Delete caches and the smoke results; keeps .venv, checkpoints and published results
	@rm -rf results/local/smoke build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@rm -rf .hypothesis .import_linter_cache
	@find benchmark baselines tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Delete also .venv, checkpoints and downloads
	@rm -rf .venv .growbench
