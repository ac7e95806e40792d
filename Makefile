# Needs Python 3.11 or newer, git and make. Another Python: make demo PYTHON=python3.12
.DEFAULT_GOAL := help
.PHONY: help demo setup test test-all test-gpu lint bench aws-sandbox clean

PROJECT := {{cookiecutter.project_slug}}
DEMO := demo/digit-classifier
VENV ?= .venv
ifeq ($(OS),Windows_NT)
PYTHON ?= python
SCRIPTS := Scripts
else
PYTHON ?= python3
SCRIPTS := bin
endif
BIN := $(VENV)/$(SCRIPTS)

# --no-compile leaves the bytecode of thousands of modules to those that are ever imported. Measured: 86 s with it and
# exact pins, 282 s without either.
INSTALL := -m pip install -q --disable-pip-version-check --no-compile
# So Python has to keep the bytecode that it makes.
unexport PYTHONDONTWRITEBYTECODE
CHECK_PYTHON = @$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"

help:
	@echo "make demo    generate a project into demo/ and run its pipeline"
	@echo "make test    run the tests of everything that the project promises: about 9 minutes on two cores"
	@echo "make test-all   and their variations: matrices of faults, long runs, walkthroughs"
	@echo "make test-gpu   those that need an NVIDIA GPU, where there is one"
	@echo "make lint    check style and types of hooks and tests"
	@echo "make bench   measure"
	@echo "make aws-sandbox   an AWS on this machine to try a project with (Linux): S3, SageMaker's jobs, MLflow"
	@echo "make clean   delete demo/ and the environment"

demo: $(DEMO)/Makefile
	@$(MAKE) --no-print-directory -C $(DEMO) repro
	@echo
	@echo "Made $(DEMO): a dataset, a trained model and its registered version, as dvc.yaml describes."
	@echo "Look at $(DEMO)/README.md, dvc.yaml, params.yaml and reports/."
	@echo "Next, after: cd $(DEMO)"
	@echo "  make repro   again: nothing runs, everything is up to date"
	@echo "  make show    the experiments so far"
	@echo "  make ui      runs and models in MLflow"

# Only the generator, in an environment of its own: the project brings the rest.
demo/.venv/.ready: requirements.lock
	$(CHECK_PYTHON)
	@$(PYTHON) -m venv demo/.venv
	@demo/.venv/$(SCRIPTS)/python $(INSTALL) -c requirements.lock cookiecutter
	@$(PYTHON) -c "import pathlib; pathlib.Path('$@').touch()"

# Order-only: a demo that is there stays as it is, with whatever was tried in it.
$(DEMO)/Makefile: | demo/.venv/.ready
	@demo/.venv/$(SCRIPTS)/python -m cookiecutter . --no-input --default-config --output-dir demo

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock $(PROJECT)/requirements.lock
	$(CHECK_PYTHON)
	@echo "Installing the packages of both requirements.lock into $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(INSTALL) -r requirements.lock -r "$(PROJECT)/requirements.lock"
	@$(PYTHON) -c "import pathlib; pathlib.Path('$@').touch()"

# Worksteal: neighbours stay on one worker and share its servers, and no worker waits for a long file of another's.
PYTEST := $(BIN)/python -m pytest -n logical --dist worksteal

test: setup
	$(PYTEST) -m "not slow and not gpu" $(ARGS)

test-all: setup
	$(PYTEST) -m "not gpu" $(ARGS)

# One after the other: they share the GPUs, and one measures the time.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu -rs tests/gpu $(ARGS)

# Not the project's tests: they are rendered, so they are checked once generated. Its packages are plain Python.
CHECKED := hooks tests update "$(PROJECT)/{{cookiecutter.package_name}}" "$(PROJECT)/mlops"

lint: setup
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m tests.benchmarks $(ARGS)

# In the foreground; what to set in a project is printed. Jobs run with JOB_PYTHON, which needs the project's packages.
JOB_PYTHON ?= $(BIN)/python

aws-sandbox: setup
	@$(BIN)/python -m tests.aws --python "$(JOB_PYTHON)" $(ARGS)

clean:
	@$(PYTHON) -c "import shutil; [shutil.rmtree(folder, ignore_errors=True) for folder in ('demo', '$(VENV)')]"
