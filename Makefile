.PHONY: setup client demo test test-full test-docker test-web test-mlflow test-deploy screenshots check format lock audit bench results docs site env dist publish rotate-passwords images backup restore clean
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
BIN = .venv/bin
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' frs/__init__.py)
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

setup: .venv/.done  ## create .venv from requirements.lock, or from constraints.txt if the lock is not for this Python or platform

.venv/.done: pyproject.toml client/pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "frs needs Python 3.11 or later: make setup PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	if $(BIN)/python .ci/lock.py --fits; then \
	  $(BIN)/python -m pip install --progress-bar on --require-hashes --requirement requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable client --editable .; \
	else \
	  $(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --editable client --editable '.[engine,imagenet,export,tensorboard,wandb,dev]'; \
	fi
	@touch $@

demo: setup  ## distil a small detector on generated data and compare it with its baseline
	$(BIN)/frs demo --data demo

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# more than cores, as tests of several processes mostly wait
PROCESSES ?= 3

test: setup  ## run the tests (23 minutes on two cores); of seeds, walks and generated requests a sample
	$(PYTEST)

test-full: setup  ## run the tests of make test and all seeds, walks and generated requests (an hour on two cores)
	$(PYTEST) -m 'not docker and not web and not mlflow and not slurm and not helm'

test-docker: setup  ## test the service in containers: builds the images, then takes 15 min; needs Docker and compose
	$(BIN)/python -m pytest -m docker --timeout 1800 tests/docker

test-web: setup  ## test the page in Chromium (2 minutes on two cores); installs Chromium with apt-get if it may
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { test "$$(id -u)" = 0 && apt-get install -y -q --no-install-recommends chromium; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m web --timeout 600 tests/web

test-mlflow: setup  ## test with MLflow's own server and client; installs them into build/mlflow, because they conflict with this project's packages
	test -x build/mlflow/bin/mlflow || { $(PYTHON) -m venv build/mlflow && build/mlflow/bin/python -m pip install --quiet mlflow==3.17.2; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m mlflow tests/worker/test_mlflow_server.py

test-deploy: setup  ## test Slurm (its own daemons, as root; 4 minutes) and the Helm chart (without a cluster); installs slurm-wlm with apt-get if it may, and Helm into build/helm
	@command -v slurmctld >/dev/null || { test "$$(id -u)" = 0 && apt-get install -y -q --no-install-recommends slurm-wlm; }
	test -x build/helm/bin/kubernetes-validate || { $(PYTHON) -m venv build/helm && build/helm/bin/python -m pip install --quiet helm-python-sdk==0.2.2 kubernetes-validate==1.37.0; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slurm or helm' --timeout 600 tests/deploy

screenshots: setup  ## write the pictures of docs/page.md
	FRS_SCREENSHOTS=docs/pictures/page OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m web --timeout 600 tests/web/test_views.py

env:  ## write .env (random passwords) and API keys for docker compose unless they exist; make env DATASETS=DIR MODELS=DIR
	$(PYTHON) docker/env.py $(if $(DATASETS),--datasets "$(DATASETS)") $(if $(MODELS),--models "$(MODELS)")

rotate-passwords:  ## new passwords of PostgreSQL and Redis in .env and in the running containers
	$(PYTHON) docker/rotate_passwords.py

images:  ## build or pull the images of the containers and save them for hosts without network; make images SAVE=frs-images.tar
	@test -n "$(SAVE)" || { echo "SAVE is not set: make images SAVE=frs-images.tar"; exit 1; }
	$(COMPOSE) build
	names=$$($(COMPOSE) --profile monitoring config | sed -n 's/^ *image: //p' | sort -u) && \
	for name in $$names; do docker image inspect "$$name" >/dev/null 2>&1 || docker pull "$$name" || exit 1; done && \
	docker save --output "$(SAVE)" $$names

dist: setup  ## build sdists, wheels and SBOMs of this version in build/dist
	PYTHONPATH=. $(BIN)/python .ci/dist.py

publish:  ## build the images, tagged with this version, and push them to a registry of yours; make publish REGISTRY=ghcr.io/acme
	@test -n "$(REGISTRY)" || { echo "REGISTRY is not set: make publish REGISTRY=ghcr.io/acme"; exit 1; }
	export FRS_API_IMAGE="$(REGISTRY)/frs-api:$(VERSION)" FRS_WORKER_IMAGE="$(REGISTRY)/frs-worker:$(VERSION)" && \
	$(COMPOSE) build api worker && $(COMPOSE) push api worker

backup:  ## back up database and artifacts of the running containers; make backup TO=backup/monday
	$(PYTHON) docker/backup.py backup "$(or $(TO),$(error TO is not set: make backup TO=backup/monday))"

restore:  ## replace database and artifacts with those of a backup; make restore FROM=backup/monday
	$(PYTHON) docker/backup.py restore "$(or $(FROM),$(error FROM is not set: make restore FROM=backup/monday))"

check: setup  ## run the linters and type checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	! git grep -nE '^(<<<<<<<|>>>>>>>) '
	$(BIN)/python .ci/retired_names.py
	$(BIN)/python .ci/vendor.py --check
	$(BIN)/python .ci/client_sync.py --check
	PYTHONPATH=. $(BIN)/python .ci/web_types.py

client: setup  ## write the models and the synchronous half of client/frs_client, after a change of the API or of its asynchronous half
	PYTHONPATH=. $(BIN)/python .ci/client_models.py
	$(BIN)/python .ci/client_sync.py

lock: setup  ## regenerate requirements.lock from constraints.txt
	$(BIN)/python .ci/lock.py

audit: setup  ## check the locked packages for known vulnerabilities; fails if a package cannot be looked up
	$(BIN)/python .ci/audit.py

bench: setup  ## run the benchmarks and compare them with their goals; make bench ONLY=evaluation
	$(BIN)/python benchmarks/table.py $(if $(ONLY),--only $(ONLY))

results: setup  ## run the experiments of docs/protocol.md on DATA/bccd; takes hours, resumes if interrupted; make results DATA=DIR ARGS="--sets cells --seeds 0-4"
	$(BIN)/python benchmarks/results.py --data "$(or $(DATA),$(FRS_TEST_DATA),build/data)" $(ARGS)

docs: setup  ## regenerate docs/api.md (command output), docs/errors.md, docs/settings.md and docs/spec.md
	$(BIN)/python docs/errors.py
	$(BIN)/python docs/settings.py
	$(BIN)/python docs/spec.py
	$(BIN)/python docs/refresh.py

site: setup  ## build the documentation site in build/site
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement docs/requirements.txt
	$(BIN)/mkdocs build --strict

format: setup  ## fix lint errors and format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:  ## remove .venv and generated folders
	rm -rf .venv build demo runs
