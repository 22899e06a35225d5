# Two commands matter: `make demo` and `make test`. Both make .venv first; nothing else is needed.
# `make studio` opens the demo's runs on a page to play with.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo studio test lint docs bench torture clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/castalia demo --out demo

demo/index.html: | setup
	$(BIN)/castalia demo --out demo

studio: demo/index.html
	$(BIN)/castalia studio demo/runs

# two workers of one thread each; tests of one system, or of one file, stay together
test: setup lint
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: setup
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# the peers get an environment of their own: they bring packages that nobody else needs
PEERS := .venv-bench/.installed

$(PEERS): pyproject.toml constraints.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $(PEERS)

bench: $(PEERS)
	.venv-bench/bin/python -m benchmarks --json docs/benchmarks.json --page docs/benchmarks.md

torture: setup
	$(BIN)/python -m torture --json torture.json --page docs/torture.md

clean:
	rm -rf .venv .venv-bench demo docs/_build
