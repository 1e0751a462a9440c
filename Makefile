# make demo: the whole benchmark on tiny twins.   make test: the tests.   make help: everything else.
PYTHON ?= python3
VENV ?= .venv
# The index that has the CPU build of torch. Where it cannot be reached, pip warns and looks elsewhere (a mirror, a wheel folder).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Each job of the tiny twins takes one core and half a gigabyte.
CORES ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --retries 1
SNAKEMAKE := PATH="$(BIN):$$PATH" $(BIN)/mergebench warm -- $(BIN)/snakemake --cores $(CORES)

.PHONY: demo demo-full test lint format profile lock clean help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## run the whole benchmark on tiny twins (about ten minutes on two cores)
	@$(SNAKEMAKE) --profile profiles/tiny
	@$(call report,tiny)

demo-full: $(VENV)/.installed ## the same with all four twins and the paper's grids
	@$(SNAKEMAKE) --profile profiles/tiny --config preset=tiny-full
	@$(call report,tiny-full)

# Snakemake's HTML report is made anew when a table is newer than it.
define report
if [ ! results/$(1)/report.html -nt results/$(1)/tables/headline.csv ]; then \
  $(BIN)/snakemake --profile profiles/tiny --config preset=$(1) --report results/$(1)/report.html > results/$(1)/logs/report.log 2>&1 \
  || { cat results/$(1)/logs/report.log; exit 1; }; fi; \
$(BIN)/mergebench show --results results/$(1)
endef

test: $(VENV)/.installed-dev ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.installed-dev ## ruff, snakefmt, mypy and snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	$(BIN)/mergebench config

format: $(VENV)/.installed-dev ## format Python and Snakemake files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

profile: $(VENV)/.installed ## make `snakemake --profile slurm` find profiles/slurm
	@$(BIN)/mergebench profile slurm

lock: $(VENV)/.installed-dev ## write envs/*.lock anew from pyproject.toml
	PATH="$(BIN):$$PATH" $(BIN)/python envs/lock.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml envs/cpu.lock | $(VENV)/bin/python
	@echo "Installing the locked CPU stack into $(VENV) (about 2 GB, once)"
	@$(PIP) install --quiet --no-deps --extra-index-url $(TORCH_INDEX) $$(grep '^torch==' envs/cpu.lock)
	@$(PIP) install --quiet --requirement envs/cpu.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed envs/dev.lock
	@$(PIP) install --quiet --requirement envs/dev.lock
	@touch $@

clean: ## remove results, caches and the environment
	rm -rf $(VENV) .snakemake results/[a-z]* .pytest_cache .mypy_cache .ruff_cache *.egg-info
