.PHONY: setup demo test test-slow test-docker check format lock audit bench results docs env backup restore clean
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
BIN = .venv/bin

setup: .venv/.done  ## the environment in .venv, exactly as in requirements.lock, or as in constraints.txt where that does not fit

.venv/.done: pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "frs needs Python 3.11 or later: make setup PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	if $(BIN)/python .ci/lock.py --fits; then \
	  $(BIN)/python -m pip install --progress-bar on --require-hashes --requirement requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	else \
	  $(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --editable '.[engine,dev]'; \
	fi
	@touch $@

demo: setup  ## distil a small detector on drawn data and show the proof
	$(BIN)/frs demo --data demo

test: setup  ## every test that runs in minutes on two cores
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: setup  ## what takes longer
	$(BIN)/python -m pytest -m slow

test-docker: setup  ## the service in containers, which needs a Docker engine and compose: builds the images, then takes a quarter of an hour
	$(BIN)/python -m pytest -m docker --timeout 1800 tests/docker

env:  ## .env with random passwords and the first API key, for docker compose; make env DATASETS=DIR MODELS=DIR
	$(PYTHON) docker/env.py $(if $(DATASETS),--datasets "$(DATASETS)") $(if $(MODELS),--models "$(MODELS)")

backup:  ## database and artifacts of the running containers; make backup TO=backup/monday
	$(PYTHON) docker/backup.py backup "$(or $(TO),$(error where to? make backup TO=backup/monday))"

restore:  ## in place of what is there; make restore FROM=backup/monday
	$(PYTHON) docker/backup.py restore "$(or $(FROM),$(error from where? make restore FROM=backup/monday))"

check: setup  ## what CI runs before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup  ## requirements.lock anew from constraints.txt
	$(BIN)/python .ci/lock.py

audit: setup  ## known vulnerabilities of what is locked; passes only if all of it could be looked up
	$(BIN)/python .ci/audit.py

bench: setup  ## what is fast and how fast: goals and measured; make bench ONLY=evaluation
	$(BIN)/python benchmarks/table.py $(if $(ONLY),--only $(ONLY))

results: setup  ## arms and seeds side by side, for docs/results.md; hours, and goes on when interrupted
	$(BIN)/python benchmarks/results.py --data $(or $(FRS_TEST_DATA),../shared/data)

docs: setup  ## run docs/api.md again and write down what is printed; list the codes of errors
	$(BIN)/python docs/errors.py
	$(BIN)/python docs/refresh.py

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build demo runs
