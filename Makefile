# Each target is one command from a fresh clone; Python 3.11 or newer is all it needs.
# `make test`, `make rest` and `make matrix` also want real servers: CONTRIBUTING.md says which,
# .ci/run installs them on Debian.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin

# The first Python that is new enough: python3 itself where it is.
FIND_PYTHON := for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v $$name && exit 0; done; exit 1

# tox looks for interpreters on PATH. pyenv has there only a folder "shims", whose commands refuse
# to run a version that is not the chosen one; the versions themselves stand beside it.
empty :=
space := $(empty) $(empty)
PYENV := $(patsubst %/shims,%,$(filter %/shims,$(subst :,$(space),$(PATH))))
OTHERS := $(wildcard $(addsuffix /versions/3.1[1-9]*/bin,$(PYENV)))
export PATH := $(PATH)$(if $(OTHERS),:$(subst $(space),:,$(strip $(OTHERS))))

.PHONY: help test rest matrix simulate demo bench lint types docs format clean

help:
	@echo "make test      lint, types, docs, every test on one Python and its coverage, beside real servers"
	@echo "make rest      what CI runs besides: the wheel, three pairs of Python and Celery, Pulsar 3.0"
	@echo "make matrix    the unit and smoke tests on all pairs of Python and Celery"
	@echo "make simulate  the simulator's seeds 0-999999; SEEDS=A-B runs others"
	@echo "make demo      publish, kill a worker, and count what is lost: less than a minute"
	@echo "make bench     all figures in README.md and the docs, measured here: 15 minutes"
	@echo "make lint      ruff, codespell, import-linter, commit subjects"
	@echo "make types     mypy --strict"
	@echo "make docs      the documentation site, in build/site"
	@echo "make format    ruff format"
	@echo "make clean     remove what these made"

$(BIN)/python:
	@python=$$($(FIND_PYTHON)) || { \
		echo "Python 3.11 or newer is needed, and no python3 on PATH is" >&2; exit 1; }; \
	echo "using $$python"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/tox.done: $(BIN)/python
	$(BIN)/python -m pip install -q 'tox>=4.23'
	@touch $@

$(VENV)/package.done: $(BIN)/python pyproject.toml
	@echo "installing the package and what it needs into $(VENV): a minute, once"
	@$(BIN)/python -m pip install -q 'pip>=25.1'
	@$(BIN)/python -m pip install -q -e '.[testing]'
	@touch $@

test rest matrix: $(VENV)/tox.done
	$(BIN)/python -m tools.with_servers $(BIN)/python -m tools.run_tox $@

SEEDS := 0-999999

simulate: $(VENV)/test.done
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs 2

$(VENV)/test.done: $(VENV)/package.done
	$(BIN)/python -m pip install -q --group test
	@touch $@

demo: $(VENV)/package.done
	@if [ -f examples/demo/requirements.txt ]; then \
		$(BIN)/python -m pip install -q -r examples/demo/requirements.txt; fi
	@$(BIN)/python -m examples.demo

bench: $(VENV)/package.done
	$(BIN)/python -m pip install -q --group bench
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.profile
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.cases
	$(BIN)/python -m benchmarks.persistence --write
	$(BIN)/python -m benchmarks.shards --write
	$(BIN)/python -m benchmarks.pages

lint: $(VENV)/tox.done
	$(BIN)/python -m tox run -e lint

types: $(VENV)/tox.done
	$(BIN)/python -m tox run -e types

docs: $(VENV)/tox.done
	$(BIN)/python -m tox run -e site
	@echo "open build/site/index.html"

format: $(VENV)/tox.done
	$(BIN)/python -m tox exec -e lint -- ruff format .

clean:
	rm -rf $(VENV) .tox build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache \
		.pytest_cache .hypothesis
