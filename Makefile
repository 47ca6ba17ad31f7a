# Everything runs in a virtual environment that make builds on first use: .venv/.
# Another Python, another environment:  make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV    = .venv
DATA    = digits
DEMOS   = yes
WORKERS = 2
OUT     =
ARGS    =

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test test-all fuzz docs mutants claims benchmark gradcheck-rates gpu-check published \
        lint format clean

python := $(VENV)/bin/python
pip    := $(python) -m pip --disable-pip-version-check --quiet
# A file's tests stay on one worker, so that what they share is made once. WORKERS=0: without any.
pytest := $(python) -m pytest -n $(WORKERS) --dist loadfile

help:
	@echo 'make train    train a VAE on the embedded digits and draw its figures'
	@echo '              DATA=mnist  OUT=DIR  ARGS="--epochs 30 --latent 2"'
	@echo 'make test     run the tests               WORKERS=2  ARGS="-k gaussian"'
	@echo 'make test-all run the slow ones too, and those that need PyTorch, JAX, CuPy or MPI'
	@echo 'make fuzz     damage data files and checkpoints, kill runs: 30,000 cases, 20 minutes'
	@echo 'make docs     build the documentation: docs/_build/html/index.html, readable offline'
	@echo '              DEMOS=no  without running the demos'
	@echo 'make mutants  plant errors, see that the tests find them: what changed; ARGS=--all is long'
	@echo 'make claims   make each equation wrong by 1%, see that every test of it fails: 5 minutes'
	@echo 'make benchmark time a training step against PyTorch, JAX and the bare products: 25 minutes'
	@echo 'make gradcheck-rates measure how often gradient checkers are mistaken: 10 minutes'
	@echo 'make published train what others published, compare the figures: 30 minutes  ARGS=iwae'
	@echo 'make gpu-check see on a GPU that all is right there, and time it: 7 minutes'
	@echo 'make lint     check style, format and types'
	@echo 'make format   repair what ruff can repair'
	@echo 'make clean    remove what make and the tools created; runs/ stays'
	@echo
	@echo 'PYTHON=$(PYTHON) builds the environment VENV=$(VENV) where there is none yet.'

train: $(VENV)/.package
	@$(python) -m scratchvae train '$(DATA)' $(if $(OUT),--out '$(OUT)') $(ARGS)

test: $(VENV)/.group-test
	@$(pytest) $(ARGS)

# cuda-check and cupy check without a GPU what is for one: NVIDIA's compiler, and CuPy for its names.
test-all: $(VENV)/.group-test $(VENV)/.group-oracles $(VENV)/.group-browser \
          $(VENV)/.group-notebook $(VENV)/.group-cuda-check $(VENV)/.group-cupy \
          $(VENV)/.group-mpi $(VENV)/.npm
	@$(pytest) -m 'slow or not slow' $(ARGS)

# Fifty times the cases of `make test-all`, on one worker, which counts them.
fuzz: $(VENV)/.group-test
	@SCRATCHVAE_FUZZ=50 $(python) -m pytest -n 0 -m slow $(ARGS) tests/fuzz

# Always from scratch: a build that knew its last one would not repeat the warnings of the pages that
# it need not read again.
docs: $(VENV)/.npm
	@rm -rf docs/_build/html
	@echo 'Building the pages$(if $(filter no,$(DEMOS)),, and running the demos, for minutes the first time)'
	@$(python) -m sphinx --fail-on-warning --nitpicky --keep-going --fresh-env --quiet \
	  -d docs/_build/doctrees $(if $(filter no,$(DEMOS)),-D gallery_run=0) $(ARGS) docs docs/_build/html
	@$(python) docs/_ext/links.py docs/_build/html
	@echo 'Open docs/_build/html/index.html'

mutants: $(VENV)/.group-test $(VENV)/.group-mutation
	@$(python) tests/mutation/run.py $(ARGS)

claims: $(VENV)/.group-test
	@$(python) tests/mutation/claims.py $(ARGS)

# In the group `oracles` are PyTorch, JAX and Numba.
benchmark: $(VENV)/.group-oracles
	@$(python) demos/benchmarks/run.py $(ARGS)

gradcheck-rates: $(VENV)/.group-test $(VENV)/.group-oracles
	@$(python) tests/gradcheck_corpus/rates.py --out docs/benchmark/gradcheck-rates.md $(ARGS)

# In the group `oracles` are PyTorch, which trains one row of the table, and Numba.
published: $(VENV)/.group-oracles
	@$(python) demos/published $(ARGS)

# Not the group `oracles`: there PyTorch and JAX need no GPU. ARGS=--rehearse shows that it runs.
gpu-check: $(VENV)/.group-gpu-check
	@$(python) demos/benchmarks/gpu_check.py $(ARGS)

lint: $(VENV)/.group-lint
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy --strict scratchvae/

format: $(VENV)/.group-lint
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

clean:
	rm -rf '$(VENV)' .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist mutants
	rm -rf docs/_build docs/node_modules
	find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps below live in the environment, so that they go when it goes. A group's stamp stands
# for the package and the group; `make .venv/.group-oracles` adds the oracles of the tests.

$(VENV)/.pip:
	@command -v '$(PYTHON)' >/dev/null 2>&1 || { \
	  echo 'There is no $(PYTHON) here. Name a Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; \
	  exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "scratchvae needs Python 3.11 or newer, and $(PYTHON) is $$('$(PYTHON)' -V 2>&1)." \
	    "Name another: make PYTHON=python3.13" >&2; \
	  exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '$(PYTHON) comes without venv or ensurepip, which make the virtual environment.' \
	    'On Debian and Ubuntu: apt install python3-venv' >&2; \
	  exit 1; }
	@echo 'Building $(VENV) with $(PYTHON)'
	@'$(PYTHON)' -m venv '$(VENV)'
	@$(pip) install --upgrade 'pip>=25.1' # the first that knows --group
	@touch '$@'

$(VENV)/.package: pyproject.toml $(VENV)/.pip
	@echo 'Installing scratchvae'
	@$(pip) install --editable .
	@touch '$@'

$(VENV)/.group-%: $(VENV)/.package
	@echo 'Installing the dependency group $*'
	@$(pip) install --group '$*'
	@touch '$@'

# What the documentation takes from npm, by the npm of the environment. No lock file, which would
# name a registry; docs/package.json names exact versions.
$(VENV)/.npm: docs/package.json $(VENV)/.group-docs
	@echo 'Installing what docs/package.json names'
	@$(VENV)/bin/npm install --prefix docs --no-package-lock --ignore-scripts --no-audit --no-fund \
	  --no-update-notifier --loglevel=error
	@touch '$@'

# Kept although make sees them as steps on the way.
.SECONDARY:
