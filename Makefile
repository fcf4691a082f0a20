# Everything starts here: `make` lists the targets. Needs GNU make and a Python of at least 3.11, nothing else.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check check-lint check-types check-unit bench docs kafka postgres clean

# The interpreters to try, first fit wins; `make setup PYTHON=...` names one.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
FITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
BIN := .venv/bin
INSTALLED := .venv/.installed

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## build .venv with the package and all it needs, at the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@set -eu; \
	if ! $(BIN)/python -c '$(FITS)' 2>/dev/null; then \
		found=; \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c '$(FITS)' 2>/dev/null; then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo 'expected a Python of at least 3.11 with its venv module; none of these is one: $(CANDIDATES)' >&2; \
			echo 'install one (Debian, Ubuntu: python3 and python3-venv), or name it: make setup PYTHON=...' >&2; \
			exit 1; \
		fi; \
		echo "building .venv with $$found"; \
		"$$found" -m venv --clear .venv; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,kafka,plot,postgres]'
	@touch $@

demo: $(INSTALLED) ## run a whole ledger in one process on real prices
	$(BIN)/clearing demo --fresh

test: $(INSTALLED) ## run all tests
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(INSTALLED) ## lint, types, import rules and unit tests, in under 30 seconds
	@$(MAKE) --no-print-directory -j2 -O check-types check-unit check-lint

check-lint check-types check-unit: $(INSTALLED)

check-lint:
	$(BIN)/ruff check
	$(BIN)/lint-imports

check-types:
	$(BIN)/mypy

check-unit:
	$(BIN)/python -m pytest tests/unit -q -n auto --dist loadfile

bench: $(INSTALLED) ## measure, beside peers and bounds
	$(BIN)/python -m tests.benchmarks

docs: $(INSTALLED) ## write the generated pages anew: docs/events.md, docs/events.json, docs/asyncapi.json
	$(BIN)/python -m infra.reference
	$(BIN)/python -m infra.streams.asyncapi

kafka: $(INSTALLED) ## run an Apache Kafka broker of this project's own until interrupted; its data go with it
	$(BIN)/python -m infra.deploy.broker

postgres: $(INSTALLED) ## run a PostgreSQL server of this project's own until interrupted; its data go with it
	$(BIN)/python -m infra.deploy.postgres

clean: ## remove all that make, tests and tools left behind, .venv too
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
