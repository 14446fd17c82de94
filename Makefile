# Needs Python 3.11 with venv, make and git. Packages go to .venv, a running system's files to var.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
CODE := asr deploy jobs transcription_site manage.py

COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile -q --strip-extras \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo run test faults bench bench-quick screenshots lint audit lock whisper

help: ## show this list
	@sed -n 's/^\([a-z-]*\): .*## /  make \1  /p' Makefile

demo: .venv/runtime.stamp ## start a private system, transcribe the samples over HTTP, stop it
	@$(BIN)/python -m deploy.launch demo

run: .venv/runtime.stamp ## start the service and stay: prints the URL, a login and a token
	@$(BIN)/python -m deploy.launch run

# Both at once, as they wait most of the time; what PostgreSQL's run says is shown after the other.
# Speech and set-up touch no database of their own, pages are looked at on PostgreSQL, and the fault
# rows start whole systems there: once is enough for these.
test: .venv/dev.stamp ## all tests, on SQLite and on PostgreSQL (ARGS="-k name" chooses some)
	@mkdir -p var; failed=0; \
	$(BIN)/python -m pytest --database postgres -m "not faults or fast_fault" \
	  --ignore tests/asr --ignore tests/deploy --ignore tests/system \
	  $(ARGS) >var/test-postgres.log 2>&1 & postgres=$$!; \
	$(BIN)/python -m pytest --database sqlite -m "not faults" --ignore tests/browser \
	  $(ARGS) || failed=1; \
	wait $$postgres || failed=1; \
	cat var/test-postgres.log; \
	exit $$failed

faults: .venv/dev.stamp ## inject every fault, on both databases (REPEAT=20, SEED=7, ARGS="-k row_01")
	@failed=0; \
	$(BIN)/python -m pytest --database postgres -m faults tests/faults $(ARGS) || failed=1; \
	$(BIN)/python -m pytest --database sqlite -m "faults and not postgres_only" tests/faults \
	  $(ARGS) || failed=1; \
	exit $$failed

bench: .venv/dev.stamp ## measure all, write benchmarks/RESULTS.md (ARGS=burst prints that one)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: .venv/dev.stamp ## less of everything, in under 2 minutes; only prints
	@$(BIN)/python -m benchmarks --quick $(ARGS)

screenshots: .venv/dev.stamp ## every page as a picture in docs/screenshots; needs chromium
	@$(BIN)/python -m pytest -q tests/browser/screenshots.py

lint: .venv/dev.stamp ## ruff, bandit, mypy, the import contract, migrations, the deployment's files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(CODE)
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint Dockerfile

# In a venv of its own: what looks for holes in the packages is none of them. It asks the network.
audit: ## holes that are known of the packages in requirements*.txt
	$(PYTHON) -m venv var/audit
	var/audit/bin/pip install --quiet --no-input pip-audit
	var/audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off \
	  -r requirements.txt -r requirements-whisper.txt -r requirements-dev.txt

lock: .venv/dev.stamp ## compile requirements*.txt anew from pyproject.toml (ARGS=--upgrade)
	$(COMPILE) $(ARGS) -o requirements.txt pyproject.toml
	$(COMPILE) $(ARGS) --extra whisper -c requirements.txt -o requirements-whisper.txt \
	  pyproject.toml
	$(COMPILE) $(ARGS) --extra whisper --extra dev -c requirements-whisper.txt \
	  -o requirements-dev.txt pyproject.toml

whisper: .venv/whisper.stamp ## install what the engine faster-whisper needs

.venv/runtime.stamp: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11")'
	@echo "Installing packages into .venv; this takes a minute, once."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-input -r requirements.txt
	@touch $@

.venv/whisper.stamp: requirements-whisper.txt .venv/runtime.stamp
	@$(BIN)/python -m pip install --quiet --no-input -r requirements-whisper.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/runtime.stamp
	@$(BIN)/python -m pip install --quiet --no-input -r requirements-dev.txt
	@touch $@
