# make demo | make test | make venv: each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
# with CPU=1, torch without CUDA: PyPI's Linux wheels need cuDNN to be imported at all, so it takes PyTorch's own index
CPU_INDEX := https://download.pytorch.org/whl/cpu

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: .venv/installed  ## a virtual environment with cvcoteach in it, and nothing else to do; CPU=1 leaves CUDA out

demo: .venv/installed  ## find planted label errors among real handwritten digits, in under two minutes
	@$(BIN)/python examples/demo.py

test: .venv/tested  ## every check: format, lint, types, import directions, tests, documentation (slow tests: CI=true)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(if $(CI),--durations=40,-m "not slow")
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs: .venv/tested  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'The documentation: build/site/index.html'

pictures: .venv/tested  ## every picture of the documentation, from real runs (minutes; takes a Chromium)
	PYTHONPATH=$(CURDIR) $(BIN)/python examples/pictures.py
	CVCOTEACH_README_PICTURES=1 $(BIN)/python -m pytest -q tests/fiftyone/app/test_story.py -k browser

fuzz: .venv/tested  ## ten thousand damaged files, each of which must end in a result or one sentence
	CVCOTEACH_FUZZ=5000 $(BIN)/python -m pytest -q tests/faults/test_fuzz.py tests/faults/test_fuzz_calls.py

faults: .venv/tested  ## kill every command, and fill its disk, at each file operation, and call it again (an hour or two)
	CVCOTEACH_FAULTS_STEP=1 $(BIN)/python -m pytest -q -s tests/faults/test_faults.py
	CVCOTEACH_RAY_MOMENTS=10 $(BIN)/python -m pytest -q -m slow tests/engines

audit: .venv/tested  ## known weaknesses of what is installed, and of our own workflow files
	$(BIN)/python -m pip install --quiet --editable '.[audit]'
	$(BIN)/pip-audit --skip-editable
	@if [ -d .github/workflows ]; then $(BIN)/zizmor .github/workflows; fi

format:  ## bring the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cvcoteach needs Python 3.11 or later; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(if $(CPU),$(BIN)/python -m pip install --quiet torch torchvision --index-url $(CPU_INDEX))
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

.PHONY: help venv demo test docs pictures fuzz faults audit format
