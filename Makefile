PYTHON := .venv/bin/python
RUN := runs/cartpole_balance
ready := .venv/.ready

.PHONY: help train test lint notebooks constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

train: $(ready) ## install, then train and evaluate the default task into RUN; a run that is there goes on
	.venv/bin/worldmodel fit --config base --run $(RUN)

test: $(ready) ## install, then run the whole test suite
	$(PYTHON) -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: $(ready) ## check style, types, and the direction of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

notebooks: $(ready) ## execute the notebooks and store them with their outputs; NAMES=3_imagine for one
	$(PYTHON) notebooks/render.py $(NAMES)

constraints: $(ready) ## compile constraints.txt from setup.cfg again, to the newest versions
	.venv/bin/uv pip compile setup.cfg --extra dev --universal --python-version 3.11 --upgrade \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet -o constraints.txt

clean: ## remove .venv and caches; runs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ready): setup.cfg constraints.txt
	@$(PYTHON) -c '' 2>/dev/null || sh .ci/venv
	@if uv --version >/dev/null 2>&1; then uv pip install --quiet --python $(PYTHON) -e '.[dev]' -c constraints.txt; \
	else $(PYTHON) -m pip install --quiet -e '.[dev]' -c constraints.txt; fi
	@touch $@
