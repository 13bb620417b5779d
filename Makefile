# Everything a developer needs. `make demo` works in a fresh clone with nothing but Python; `make test` needs a RabbitMQ and a Redis
# besides: it takes the installed `rabbitmq-server` and `redis-server`, or makes containers where Docker answers.
#
#   make PYTHON=python3.12 test     another interpreter
#   make test ARGS='-k routing'     arguments for pytest, or for the demo
#   make test JOBS=0                in one process instead of three: for a debugger, or a small machine

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench faults soak docs lock clean

help: ## Say what can be made.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(VENV)/.base ## Index the standard library on two queues, and show what hipri is good for.
	@$(BIN)/amqp-tasks demo $(ARGS)

test: $(VENV)/.dev ## Run all tests, against RabbitMQ in a container or a private node.
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## Check format, style, types and the layers of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHONPATH=routing $(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev ## Measure against Celery, Dramatiq and the broker's own ceiling.
	cd tests && $(abspath $(BIN))/python -m benchmarks $(ARGS)

faults: $(VENV)/.dev ## Run all fault tests, also in full length, on 3.10 (installed) and 4 (container), and print their table.
	for kind in installed container; do \
	  export AMQP_TASKS_TEST_BROKER=$$kind; \
	  $(BIN)/python -m pytest tests/faults -m 'not long and not soak' -n $(JOBS) --dist loadfile $(ARGS) || exit 1; \
	  $(BIN)/python -m pytest tests/faults -m 'long and not soak' $(ARGS) || exit 1; \
	done

soak: $(VENV)/.dev ## Let random faults strike for ten minutes (ARGS='--minutes 2', the least), and see that nothing is lost or grows.
	$(BIN)/python -m pytest tests/faults -m soak -s $(ARGS)

docs: $(VENV)/.dev ## Build the documentation into site/; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: | $(BIN)/python ## Renew constraints.txt: the versions of everything that development and CI install, for all Pythons.
	@$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --extra dev --universal --python-version 3.11 \
	  --strip-extras --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --output-file constraints.txt

clean: ## Remove what the other targets made.
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find amqp_tasks routing tests docs compose -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: pip runs again only when pyproject.toml or the locked versions have changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "amqp-tasks needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) -V 2>&1): try make PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(BIN)/python
	@echo "installing amqp-tasks"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing amqp-tasks and the tools for development"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.base
