# Every target does its own set-up: Python 3.10 or newer, make and a package registry are all it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/ready  ## index the standard library's documentation and ask it questions
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true $(BIN)/mlr-rag demo --into build/demo-kb

test: lint  ## lint, types and tests
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready  ## the figures of BENCHMARKS.md; many hours, on a quiet machine; what was killed goes on
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
