# Everything that a developer does here. `make` alone lists the targets.
# Needs Python 3.11 or later with pip, make and git; the rest comes from requirements.lock.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
RUNS ?= out/reports
# Processes that share the unit tests of `make test`; the others share a Ray, S3 servers, a browser.
JOBS ?= 2
STAMP := .venv/.installed
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate pyproject.toml --group dev

##@ Use
demo: $(STAMP)  ## label a small store of images with the model in the box
	@$(BIN)/python -m examples.demo

install: $(STAMP)  ## make .venv from the lock (5 GB on Linux; the targets below do it by themselves)
	@echo "Ready: .venv with $$($(BIN)/python --version). Another Python: make clean install PYTHON=python3.12"

##@ Develop
test: $(STAMP)  ## run the tests, except slow ones
	@$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile tests/unit
	@$(BIN)/python -m pytest -m "not slow" --ignore tests/unit

test-all: $(STAMP)  ## run all the tests and repeat pytest's last line
	@mkdir -p out
	@set -o pipefail; $(BIN)/python -m pytest | tee out/test-all.log
	@tail -n 1 out/test-all.log

check: $(STAMP)  ## lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: bench-predict bench-training  ## measure labelling and training against their peers

bench-predict: $(STAMP)  ## measure labelling against its peers (OPTIONS="--store cifar --model box")
	@$(BIN)/python -m benchmarks.predict $(OPTIONS)

bench-peers: $(STAMP)  ## install the peers that the lock does not have, in an environment of their own
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python out/peers
	@$(BIN)/uv pip install --python out/peers/bin/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --python out/peers/bin/python -r benchmarks/peers/requirements.txt

bench-training: $(STAMP)  ## measure training against a hand-written loop
	@$(BIN)/python -m benchmarks.training

bench-reports: $(STAMP)  ## train the reports' recipes, RUNS=out/reports, and keep their table
	@$(BIN)/python -m cifar_ray train cifar10 --recipe reports --out $(RUNS) \
		$(if $(MAX_MINUTES),--max-minutes $(MAX_MINUTES))
	@cp $(RUNS)/table.md benchmarks/results/training.md

##@ Keep
lock: $(STAMP)  ## write requirements.lock again after pyproject.toml changed (UPGRADE=1: newest versions)
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements.lock

clean-room: ## clone what is committed into an empty folder and run README's two commands there
	@tools/clean_room.sh

clean: ## remove .venv, caches, the demo and what runs wrote to out/
	rm -rf .venv build demo dist out .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

$(STAMP): requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) tools/install.sh
	@touch $@

.PHONY: bench bench-peers bench-predict bench-reports bench-training check clean clean-room demo format help install lock test test-all
