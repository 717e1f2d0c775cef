# Two commands: `make demo` and `make test`. Each sets the machine up first when that has not been done.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# cpu: a PyTorch without CUDA, make setup TORCH=cpu
TORCH  :=
# shipped, or train: make demo TEACHER=train
TEACHER := shipped
DEMO   := work/demo$(if $(filter train,$(TEACHER)),-train)

.DEFAULT_GOAL := help
.PHONY: help setup test lint demo docs clean-demo

help:
	@echo "make demo        scenes, store of the shipped teacher, student alone and distilled, scored and pictured"
	@echo "                 ($(DEMO); TEACHER=train trains a teacher first)"
	@echo "make test        ruff, import-linter and pytest"
	@echo "make docs        the documentation as a site, in work/site; a broken link is an error"
	@echo "make setup       what both need, in $(VENV); says first what it downloads and builds (TORCH=cpu: no CUDA)"
	@echo "make clean-demo  remove what the demo wrote"

setup: $(READY)

$(READY): setup.cfg setup.py pyproject.toml constraints.txt tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH="$(TORCH)" sh tools/setup.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config setup.cfg

test: $(READY) lint
	$(BIN)/python -m pytest

demo: $(READY)
	$(BIN)/python -m demo --out "$(DEMO)" --teacher "$(TEACHER)"

docs: $(READY)
	@$(BIN)/python -c "import material" 2>/dev/null || \
		$(BIN)/pip install --quiet --no-build-isolation -c constraints.txt -e '.[docs]'
	$(BIN)/python tools/config_keys.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean-demo:
	rm -rf work/demo work/demo-train
