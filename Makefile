# The commands of this project. `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEB_STAMP := web/node_modules/.package-lock.json
.DEFAULT_GOAL := help
.PHONY: help setup demo run test chaos lint lock web web-test bench screenshots clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-11s %s\n' "$$name" "$$what"; done

setup: $(STAMP) ## make .venv with the locked dependencies

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Footfall needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment: apt install python3-venv" >&2; exit 1; }
	@echo "installing the locked dependencies (about half a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup ## start everything in a throwaway folder, send sample traffic, print the numbers, stop
	@$(BIN)/footfall demo

run: setup ## serve on port 8000 until Ctrl-C; the data stays in .footfall
	@$(BIN)/footfall up

$(WEB_STAMP): web/package-lock.json
	@node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' || { echo "the script's tests need Node.js 20 or newer, with npm: https://nodejs.org" >&2; exit 1; }
	@echo "installing the script's build and test tools ..."
	@cd web && npm ci --silent --no-audit --no-fund

web: $(WEB_STAMP) ## build the script (api/static/footfall.js) and the React hooks
	@cd web && npm run --silent build

web-test: $(WEB_STAMP) ## types, style and tests of the script and the hooks
	@cd web && npm run --silent check && npm test --silent

lint: setup ## style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile

chaos: setup ## kill and harm everything at random for five minutes; SEED=7 MINUTES=1 choose (full disks: as root)
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

test: lint web-test ## lint, types, import contracts, all tests
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --cov --cov-report=term

lock: setup ## write the lock files anew from pyproject.toml
	@$(BIN)/pip-compile --quiet --upgrade --output-file requirements.lock pyproject.toml
	@$(BIN)/pip-compile --quiet --upgrade --extra dev --output-file requirements-dev.lock pyproject.toml

bench: setup ## measure everything against the usual design, half an hour; QUICK=1: five minutes (needs wrk)
	@command -v wrk >/dev/null || { echo "the load comes from wrk, which is not installed: apt install wrk" >&2; exit 1; }
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

screenshots: setup ## take the dashboard's pictures in docs/ anew (needs Debian's chromium and chromium-driver)
	@$(BIN)/python -m tests.browser.screenshots docs

clean: ## remove the virtual environment and the caches (never the data in .footfall)
	@rm -rf $(VENV) web/node_modules web/react/dist .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
