# make demo    sets everything up and runs the demo
# make test    sets everything up and runs every check
# PYTHON=python3.12 takes another Python than python3 (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-all lint bench clean
.DEFAULT_GOAL := demo

demo: $(READY)
	@$(BIN)/chainrule demo

test: lint
	@$(BIN)/pytest -n auto

# The long sweeps as a whole: every operation of torch, every rule in every awkward shape.
test-all: lint
	@CHAINRULE_SWEEP=all $(BIN)/pytest -n auto

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(READY)
	@$(BIN)/python bench/speed.py
	@$(BIN)/python bench/scale.py
	@$(BIN)/chainrule bench

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "chainrule needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "this Python cannot make virtual environments; on Debian and Ubuntu run: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "making .venv; torch is large, so the first time takes minutes"; $(PYTHON) -m venv .venv; }
	@$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e ".[demo,dev]"
	@touch $@

clean:
	rm -rf .venv chainrule-demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
