# Every target does the set-up that it needs, on a fresh machine with Python 3.11 or later. No GPU is needed.
PYTHON ?= python3
BIN = .venv/bin
export PYTHONHASHSEED = 0
# Containers often set it. Without compiled modules every worker process takes seconds longer to start.
export PYTHONDONTWRITEBYTECODE =

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 11

# Modules are compiled when they are first imported; most of these packages' never are.
.venv/ready: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile -c constraints-cpu.txt -e ".[test]"
	touch $@

setup: .venv/ready  ## the environment in .venv, torch's CPU build

study: .venv/ready  ## run the quick study and render its reports; prints the answer and the path of index.html
	$(BIN)/python -m pdstudy report params/quick.yaml

# Two workers of one thread each: a suite of tiny models leaves most of a second thread idle. A third where tests wait for processes.
BESIDE = -n 2 --dist loadfile --durations=8
WAITING = -n 3 --dist worksteal --durations=8

test: .venv/ready  ## the whole suite, the notebooks with it
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	export JUPYTER_PLATFORM_DIRS=1 OMP_NUM_THREADS=1 PDSTUDY_TESTS_SHARED="$${PDSTUDY_TESTS_SHARED:-$$folder}" && \
	$(BIN)/python -m pytest $(BESIDE) && cp -r "$$PDSTUDY_TESTS_SHARED/smoke" "$$folder/outputs" && \
	PDSTUDY_OUTPUTS="$$folder/outputs" $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120 notebooks

FAULTS ?= faults

faults: .venv/ready  ## the slow faults: kills, full disks, hostile texts, a fuzz of params files, a cluster of Ray
	@JUPYTER_PLATFORM_DIRS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(FAULTS)" $(WAITING) tests/faults

BROWSER ?= browser

browser: .venv/ready  ## JupyterLab and the reports in this machine's Chromium; the pictures stay in the folder PDSTUDY_SCREENSHOTS
	@JUPYTER_PLATFORM_DIRS=1 OMP_NUM_THREADS=1 PDSTUDY_SCREENSHOTS="$${PDSTUDY_SCREENSHOTS:-outputs/screenshots}" $(BIN)/python -m pytest -m "$(BROWSER)" $(BESIDE) tests/browser

lab: .venv/ready  ## JupyterLab on this machine only, with its token; more for it in LAB="--port=9000 --no-browser"
	$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks $(LAB)

docs: .venv/ready  ## the documentation in site/, strict; prints the path of its first page
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo "$(CURDIR)/site/index.html"

docs-test: .venv/ready  ## README and docs: every command in them is run, what is generated is current, the pages build
	@JUPYTER_PLATFORM_DIRS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m docs $(BESIDE) tests/docs

lint: .venv/ready  ## ruff, notebooks too; the rule for imports; dependencies unused or undeclared
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry pdstudy tools notebooks

.PHONY: help setup study test faults browser lab docs docs-test lint
