# The six things people do. The plain commands behind them are in README.md and CONTRIBUTING.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup test lint bench docs demo

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

setup: .venv/bin/brivl-search  ## a virtual environment with everything for development

.venv/bin/brivl-search:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[cpu,demo,test,docs,dev]'

test: setup  ## the whole suite; one folder: .venv/bin/python -m pytest tests/index
	$(BIN)/python -m pytest

lint: setup  ## ruff, mypy --strict, the direction of imports, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: setup  ## the quick benchmarks; benchmarks/README.md has the full ones
	$(BIN)/python benchmarks/bulk_embedding.py --limit 512 --rounds 3
	$(BIN)/python benchmarks/open_index.py --rows 20000
	$(BIN)/python benchmarks/cold_start.py

docs: setup  ## the documentation as a site, in site/
	$(BIN)/mkdocs build --strict

demo: setup  ## index real photographs and search them
	$(BIN)/brivl-search demo
