# make setup | demo | test | quick | lint | docs | clean.  A second call does no work twice.
.DEFAULT_GOAL := help
.PHONY: help setup demo test quick lint docs clean
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# FFCV=0 leaves FFCV and its system packages out: simplejpeg then reads what is packed.
FFCV ?= 1
PYTHON ?= $(firstword $(foreach v,3.12 3.11 3.13,$(shell python$(v) -c \
	'import sys; print(sys.executable if sys.version_info[:2] == ($(subst .,$(comma),$(v))) else "")' 2>/dev/null)))
comma := ,
VENV ?= .venv
READY := $(VENV)/.ready
# Python keeps what it compiles of torch, timm …, whatever the environment says: without, each start
# of a program takes twice as long.
export PYTHONDONTWRITEBYTECODE :=
BIN := $(VENV)/bin

help:
	@echo "make setup   virtual environment .venv, pinned by constraints.txt (FFCV=0: without FFCV)"
	@echo "make demo    train SEMA, linear attention and VMamba on procedural shapes; table, plots"
	@echo "make test    all tests that need no GPU"
	@echo "make quick   those that take a minute or two and need no FFCV, Slurm or browser"
	@echo "make lint    ruff and mypy"
	@echo "make docs    README and docs as a static site, site/index.html; links checked"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11, 3.12 or 3.13 on the PATH:" \
		"install one, or give make setup PYTHON=/path/to/python" >&2; exit 1; }
	@.ci/system-packages "$(PYTHON)" "$(FFCV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
		-e '.[dev,sweep$(if $(filter 0,$(FFCV)),,$(comma)ffcv)]'
	@touch $@

demo: $(READY)
	$(BIN)/semabench demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m 'not gpu' $(ARGS)

QUICK := tests/config tests/mixers tests/ops tests/training tests/study tests/data/augment \
	tests/data/test_draws.py tests/data/sources tests/data/ffcv/test_publish.py tests/test_files.py \
	tests/test_structure.py tests/results/test_record.py tests/results/test_store.py
quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not gpu' $(QUICK) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 COLUMNS=100 $(BIN)/mkdocs build
	@echo site/index.html

clean:
	rm -rf .venv .venv-* build dist site src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
