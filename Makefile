# Every target makes .venv by itself when it is missing or older than its lock file.
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: help run demo test test-faults lint format bench lock clean

help:  ## Say what can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

run: $(VENV)/.runtime  ## Start the control plane
	$(PYTHON) run.py

demo: $(VENV)/.dev  ## Deploy, ask for status and stop a small project through one agent
	$(PYTHON) -m examples.demo

test: $(VENV)/.dev  ## Run all tests that this machine can run
	$(PYTHON) -m pytest $(ARGS)

test-faults: $(VENV)/.dev  ## Run only the tests that kill, cut, freeze and fill (some need root)
	$(PYTHON) -m pytest tests/faults $(ARGS)

lint: $(VENV)/.dev  ## Check style, types and the floors
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/.dev  ## Put the code into its standard form
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(VENV)/.dev  ## Measure deploys/s, latency, connects/s and memory beside a floor
	$(PYTHON) -m benchmarks $(ARGS)

lock: $(VENV)/.dev  ## Compile the lock files from pyproject.toml (needs uv on the PATH)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt

clean:  ## Remove what these targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --no-deps: the lock files are complete, and an older pip would look for the newest of what a package wants with extras.
$(VENV)/.runtime: requirements.txt
	@echo "Preparing $(VENV) (once) ..."
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "Adding the development tools to $(VENV) (once) ..."
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	@touch $@
