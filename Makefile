# Two commands: `make demo` and `make test`. Each sets the machine up first when that has not been done.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   := work/demo

.DEFAULT_GOAL := help
.PHONY: help setup test lint demo clean-demo

help:
	@echo "make demo        scenes, teacher, store, student alone and distilled, scored and pictured ($(DEMO))"
	@echo "make test        ruff, import-linter and pytest"
	@echo "make clean-demo  remove what the demo wrote"

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/setup.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config setup.cfg

test: $(READY) lint
	$(BIN)/python -m pytest

demo: $(READY)
	$(BIN)/python benchmarks/demo.py --out "$(DEMO)"

clean-demo:
	rm -rf "$(DEMO)"
