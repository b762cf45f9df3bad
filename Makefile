# make demo   the main job on embedded pictures: no download of data, no GPU, a few minutes
# make test   all tests
# make check  what CI runs: style, types, tests
# Each makes .venv and installs what it needs; Python 3.11 or newer and pip are enough.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check docs clean

demo: .venv/installed
	$(BIN)/cutline demo

test: .venv/installed-dev
	$(BIN)/python -m pytest

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# docs/cli.md from the code; a test checks that it is up to date
docs: .venv/installed-dev
	$(BIN)/python docs/make_cli_pages.py > docs/cli.md

# torch first and by its exact version, so that no package draws in another build of it
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (1.6 GB, a minute or two)"
	$(PIP) $$(grep '^torch==' constraints.txt)
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info
