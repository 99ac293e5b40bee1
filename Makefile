# make demo   set up .venv, run the quick-start notebook on the bundled model, show the conversation
# make test   set up .venv, run every check and every test
# make lab    set up .venv, open JupyterLab on the notebooks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint lab clean

demo: $(VENV)/installed
	$(BIN)/python notebooks/demo.py

test: lint
	@tests/browser/install_chromium.sh
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/pyright

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf $(VENV) .demo

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable ".[engine,lab,dev]"
	@touch $@
