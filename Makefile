# Everything a newcomer runs. `make setup` makes .venv in the checkout and nothing else.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 14)))' 2>/dev/null \
	&& echo $$candidate && break; done)
BIN := .venv/bin
# Tests wait as well as work: three keep two processors busy.
WORKERS ?= 3
# The suite starts hundreds of processes: where bytecode may not be kept, each compiles all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup system demo test test-quick test-interpreters test-containers lint format typecheck audit lock clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the locked dependencies into .venv (a few minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# Python 3.11 puts setuptools into every environment, later ones don't: none may lean on it.
	@$(BIN)/pip uninstall --quiet --quiet --disable-pip-version-check --yes setuptools
	@touch $@

demo: setup
	@$(BIN)/perennial demo

# Debian packages for the tests that need more than Python, where this is root's machine.
system:
	@tests/system-packages.sh

test: setup system
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-quick: setup
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m quick

# The other supported Pythons that are at hand, each in an environment of its own: set up, a short demo, the quick tests.
test-interpreters: setup
	@$(BIN)/pytest -m interpreters

# Builds the images, runs them, and brings the whole of docker/compose.yaml up; minutes.
test-containers: setup system
	@$(BIN)/pytest -m oci

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: setup
	@$(BIN)/mypy
	@# Benchmarks run seldom: that they call what they measure as it is now is all that is asked of their types.
	@! MYPYPATH=benchmarks $(BIN)/mypy --explicit-package-bases $(wildcard benchmarks/*.py benchmarks/*/*.py) \
		| grep -E '\[(call-arg|name-defined|import-not-found)\]'

# Needs the network, and fails without it: known weaknesses of what is locked (accepted ones, with their reason, in
# tests/audit-ignore.txt), and the licences of what is installed.
audit: setup
	@$(BIN)/pip-audit --requirement requirements.lock --disable-pip --require-hashes --strict --progress-spinner off \
		$$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\).*/--ignore-vuln \1/p' tests/audit-ignore.txt)
	@$(BIN)/pytest -q tests/test_licences.py

# Needs uv; resolves for every supported Python at once. The images' locks are parts of the whole one.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--no-header --quiet
lock:
	$(COMPILE) pyproject.toml --group dev --group server --output-file requirements.lock
	$(COMPILE) pyproject.toml --group server --group workers --constraint requirements.lock --output-file requirements-worker.lock
	$(COMPILE) --group serving --constraint requirements.lock --output-file requirements-serving.lock

clean:
	rm -rf .venv .perennial
