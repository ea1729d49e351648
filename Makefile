# `make course` and `make test` set everything up by themselves: Python 3.11+ and make are all they need.
# Variables you may give:  PYTHON=/path/to/python3.12   JOBS=4   ARGS='...'   PIP_ARGS='...'

VENV     ?= .venv
JOBS     ?= 2
ARGS     ?=
PIP_ARGS ?=
# The first interpreter that is new enough; `make PYTHON=...` takes yours instead.
PYTHON   ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
              $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PY       := $(VENV)/bin/python
READY    := $(VENV)/.ready

# glibc hands every big tensor back to the kernel and faults it in again; keeping the memory makes
# training on CPUs 1.5 to 2 times faster. It must be set before Python starts. Others ignore it.
export MALLOC_MMAP_THRESHOLD_ ?= 4000000000
export MALLOC_TRIM_THRESHOLD_ ?= 8000000000
export MALLOC_TOP_PAD_        ?= 200000000
# The notebooks' kernel is this environment's, even if the user has another one called python3.
export JUPYTER_PREFER_ENV_PATH ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup course test fuzz lab lint fetch pin resolve clean

help: ## what there is to make
	@echo "usage: make TARGET [PYTHON=...] [ARGS='...'] [PIP_ARGS='...'] [JOBS=2]"
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1	\2/p' Makefile | expand -t 16

setup: $(READY) ## the environment in .venv alone (the other targets do it by themselves)

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "s2flib needs Python 3.11 or newer and found $$('$(PYTHON)' --version 2>/dev/null | grep . || echo none):" \
	       "install one, or name yours: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; fi
	@echo "Setting up $(VENV) with $$('$(PYTHON)' --version): once, a few minutes, up to 6 GB of disk."
	@if [ -e "$(VENV)" ] && [ ! -f "$(VENV)/pyvenv.cfg" ]; then \
	  echo "$(VENV) is there already and is no virtual environment: move it, or name another: make VENV=..." >&2; exit 2; fi
	@"$(PY)" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear "$(VENV)" || { \
	  echo "The environment could not be made; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	"$(PY)" -m pip install --disable-pip-version-check --progress-bar off \
	  $(or $(PIP_ARGS),$$("$(PY)" scripts/torch_index.py)) -c constraints.txt -e '.[course,dev]'
	@touch "$(READY)"

course: $(READY) ## run the whole course headless (preset tiny), print Table 1 and where the report is
	"$(PY)" -m s2flib run $(ARGS)

test: $(READY) ## run every test
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -n $(JOBS) --dist worksteal $(ARGS)

fuzz: $(READY) ## try s2flib on broken pictures, weights, folders, downloads and kills (half an hour)
	OMP_NUM_THREADS=1 PYTHONPATH=tests "$(PY)" -m fuzz --jobs $(JOBS) $(ARGS)

lab: $(READY) ## open JupyterLab on the notebooks
	"$(PY)" -m jupyterlab --notebook-dir=notebooks $(ARGS)

lint: $(READY) ## check style, format, layers of imports, and types
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(VENV)/bin/lint-imports"
	"$(PY)" -m pyright

fetch: $(READY) ## list the published weights; make fetch ARGS=NAME downloads one
	"$(PY)" -m s2flib fetch $(ARGS)

pin: $(READY) ## write the versions installed now into constraints.txt
	@{ sed '/^# .* `make pin`:$$/q' constraints.txt; "$(PY)" -m pip freeze --all --disable-pip-version-check \
	   --exclude-editable | grep -v -e ' @ ' -e '^-' -e '^pip==' -e '^wheel==' | sed 's/+[A-Za-z0-9.]*$$//'; } > constraints.tmp
	@mv constraints.tmp constraints.txt && touch "$(READY)"

resolve: $(READY) ## ask the package index whether every named Python can install the pins
	"$(PY)" scripts/resolve_pins.py $(ARGS)

clean: ## remove the environment and what tests leave behind (never runs/ or data/)
	@if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	rm -rf build *.egg-info .pytest_cache .ruff_cache
