# Siyu 私域. `make help` lists every target. Everything a target needs it installs by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo $(HOME)/.local/bin/uv)
RUN := $(UV) run --frozen

# A distribution's Python is compiled with profile-guided optimisation, those of version managers mostly are not: 13 to
# 20 % of an event's time. Another one: make UV_PYTHON=...
DISTRIBUTION := $(shell /usr/bin/python3 -c 'import sys; (3, 11) <= sys.version_info < (3, 14) and print(sys.executable)' 2>/dev/null)
ifneq ($(DISTRIBUTION),)
export UV_PYTHON ?= $(DISTRIBUTION)
endif

SEED ?= 1
STAFF ?= 200
CUSTOMERS ?= 5000
KEEP ?=
DATA ?=
SCENARIO ?= demo
SCALE ?= 1
RATE ?= 1

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## Install what is missing: uv, Python packages, Java and Maven, Kafka's jars
	@deploy/local/setup.sh

.PHONY: demo
demo: setup ## Play a scenario (SCENARIO= SCALE= RATE=; DATA=file.csv.gz: a real year) through everything and audit it; SEED= STAFF= CUSTOMERS= KEEP=1
	@$(RUN) siyu demo --scenario $(SCENARIO) --scale $(SCALE) --rate $(RATE) --seed $(SEED) --staff $(STAFF) --customers $(CUSTOMERS) \
		$(if $(DATA),--data $(DATA)) $(if $(KEEP),--keep)

.PHONY: test
test: setup ## Everything CI needs: lint, types, unit, contract, integration, end to end
	@deploy/local/setup.sh --compose
	@$(MAKE) --no-print-directory lint types
	@$(RUN) siyu schemas
	@$(RUN) pytest tests --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: ## Format and lint checks
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .

.PHONY: types
types: ## mypy --strict on everything that runs
	@$(RUN) mypy siyu services simulator deploy

.PHONY: unit
unit: setup ## Tests that need neither broker nor engine
	@$(RUN) pytest tests/unit tests/contract -m 'not integration'

.PHONY: format
format: ## Format the code and sort imports
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

.PHONY: bench
bench: setup ## Run every benchmark, one after the other; for quiet machines
	@for file in benchmarks/*.py; do echo "== $$file"; $(RUN) python $$file || exit 1; done
	@echo "== benchmarks/join.py --step journey"; $(RUN) python benchmarks/join.py --step journey

.PHONY: chaos
chaos: setup ## Kill, freeze, wipe and bounce under load for five minutes, then audit; SEED= SHORT=1 (one minute) KEEP=1
	@$(RUN) python tests/chaos/chaos.py --seed $(SEED) $(if $(SHORT),--short) $(if $(KEEP),--keep)

.PHONY: clean
clean: ## Remove what runs left behind (var/), not the caches
	@rm -rf var
