# Widebase: everything a checkout needs, from nothing but Python >= 3.10 and git.
#
#   make demo       set up, match a real pair of photographs, print and draw the answer
#   make test       set up, run every test
#   make test-fast  the tests that take no longer than a few seconds each
#   make check      format, lint, types, import layers
#   make bench      speed and accuracy measurements
#
# Variables: PYTHON (interpreter the environment is made from), VENV (where it lies),
# TORCH_INSTALL (what pip is told for PyTorch; add an --index-url to choose another build).

PYTHON ?= python3
VENV ?= .venv
TORCH_INSTALL ?= torch==2.13.0
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
LINTED := heads matcher benchmarks tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-fast check format bench gpu clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

# PyTorch alone and first, so that no other package decides which build of it is taken.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Widebase needs Python 3.10 or newer; '$(PYTHON)' is" \
			"$$($(PYTHON) --version 2>&1 || true). Name another: make PYTHON=python3.11" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt $(TORCH_INSTALL)
	@touch $@

# On a machine without the X libraries OpenCV's ordinary wheel cannot be loaded; the headless
# one holds the same functions.
$(READY): $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		echo 'OpenCV cannot be loaded here; taking its headless build.'; \
		$(PIP) uninstall -y opencv-python; \
		$(PIP) install -c constraints.txt --no-deps --force-reinstall opencv-python-headless; \
		$(BIN)/python -c 'import cv2'; }
	@touch $@

demo: $(READY)
	$(BIN)/widebase demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(READY)
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(READY)
	$(BIN)/ruff format $(LINTED)
	$(BIN)/ruff check --fix $(LINTED)

bench: $(READY)
	$(BIN)/python -m benchmarks speed

# FAISS for NVIDIA cards in place of the CPU build: the two share files and must not stand together.
gpu: $(READY)
	$(PIP) uninstall -y faiss-cpu faiss-gpu-cu12
	$(PIP) install faiss-gpu-cu12

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
