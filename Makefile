# Every target does the set-up that it needs. `make demo` and `make test` are all that a newcomer must know.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export ACDIS_HOME ?= $(CURDIR)/runs
export RAY_USAGE_STATS_ENABLED := 0
# of the inputs that tests/fuzz makes: all of them, and of another seed, once a week (.github/workflows/weekly.yml)
export ACDIS_FUZZ ?= 0.3

.DEFAULT_GOAL := help
.PHONY: help install demo stop test test-cluster test-bench test-gpu test-chaos check docs audit bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## create .venv, with what tests and checks need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (about 2 GB, some minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: install  ## train the rows of Tables 2 and 3 on phantoms through a Ray job, in about 13 minutes
	@$(BIN)/python experiments/main.py submit reproduce

stop: install  ## end exactly what `make demo` started
	@$(BIN)/python experiments/main.py down

# About half of `make test`; those that start a Ray come last.
BESIDE := tests/training tests/verbs tests/workflow tests/tracking tests/cluster

test: install  ## what every change must pass: all rooms, in two processes side by side
	@echo "beside what is shown run $(BESIDE); what they say comes at the end"
	@# a shell starts what runs beside it with SIGINT ignored, and these tests press Ctrl-C
	@env --default-signal=INT $(BIN)/python -m pytest -p no:cacheprovider $(BESIDE) > $(VENV)/beside.log 2>&1 & beside=$$!; \
	env --default-signal=INT $(BIN)/python -m pytest $(addprefix --ignore ,$(BESIDE) tests/multihost); others=$$?; \
	wait $$beside; beside=$$?; cat $(VENV)/beside.log; exit $$((others || beside))

test-cluster: install  ## kills and losses on a Ray; `ray up`, jobs and `ray down` on three hosts (network namespaces: root)
	@env --default-signal=INT $(BIN)/python -m pytest -p no:cacheprovider -m "faults and not chaos" tests/cluster tests/verbs > $(VENV)/faults.log 2>&1 & faults=$$!; \
	ACDIS_SLURM=1 env --default-signal=INT $(BIN)/python -m pytest tests/multihost; hosts=$$?; \
	wait $$faults; faults=$$?; cat $(VENV)/faults.log; exit $$((hosts || faults))

test-bench: install  ## every benchmark at a tiny size, as its users run it
	@$(BIN)/python -m pytest -m bench tests/benchmarks

test-gpu: install  ## every method on a pretended GPU (needs g++), and on a real one where there is one
	@$(BIN)/python -m pytest -m "gpu or not gpu" tests/gpu

test-chaos: install  ## every fault at random moments (ACDIS_SEED chooses them); writes docs/reliability.md's table
	@rm -f $(VENV)/chaos.jsonl
	@env --default-signal=INT ACDIS_CHAOS_RESULTS=$(CURDIR)/$(VENV)/chaos.jsonl $(BIN)/python -m pytest -m chaos; code=$$?; \
	$(BIN)/python tests/cluster/storm/table.py $(VENV)/chaos.jsonl docs/reliability.md; exit $$code

check: install  ## formatting, lint, types, and who may import whom
	@$(BIN)/ruff format --check platform experiments tests benchmarks docs
	@$(BIN)/ruff check platform experiments tests benchmarks docs
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.docs  ## the documentation as a site in .venv/site; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir $(abspath $(VENV))/site && echo "docs: $(VENV)/site/index.html"

$(VENV)/.docs: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

audit:  ## known weaknesses of the pinned versions (pip-audit), as a report
	@.ci/audit $(PYTHON) $(VENV)-audit

bench: install  ## the benchmarks; each prints ratios
	@for script in $$(grep -l "__main__" benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove the virtual environment and tools' caches; runs/ stays
	@rm -rf $(VENV) $(VENV)-audit .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
