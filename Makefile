# Everything runs in .venv, which the first target that needs it makes. Needs Python ≥ 3.11 and make, nothing else;
# with a C compiler there is the native library too (workers/native/README.md).
PYTHON ?= python3
BIN := .venv/bin
STUBS := job_spec constraints metrics jobs datasets models parameter_server cluster
SERVICES := jobs datasets models parameter_server cluster
# Three tiers of tests, by markers of pytest; each test is in one of them.
FAST := not system and not faults or happy
SYSTEM := system and not faults and not happy
FAULTS := faults
PYTEST := $(BIN)/pytest --durations=15
# Each of the two has daemons of its own; much of the time is waiting. Tests of faults come one after the other, because
# several of their jobs at a time take longer than the waits of a test allow.
DAEMONS := --numprocesses 2 --dist loadfile --no-loadscope-reorder --timeout 300

# Where nothing compiled may be kept, each of the many processes that tests start compiles our code again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-system test-faults lint format native wheel proto docs boards rules bench bench-load bench-soak bench-scrapes robustness robustness-long clean

demo: .venv/native
	$(BIN)/nabla demo

# Side by side: mypy keeps one CPU busy, and the tests wait for others now and then.
test: .venv/native
	$(MAKE) --no-print-directory --jobs=2 lint test-fast

# The lines of both are mixed, so that the progress of the tests is seen.
test-fast: .venv/native
	$(PYTEST) --numprocesses auto --maxprocesses 4 -m "$(FAST)"

# And the tests of `make test` that draw examples, with four times as many.
test-system: .venv/native
	$(PYTEST) $(DAEMONS) -m "$(SYSTEM)"
	$(PYTEST) --numprocesses auto --maxprocesses 4 --hypothesis-profile thorough -m "hypothesis and not system and not faults"

test-faults: .venv/native
	$(PYTEST) --timeout 300 -m "$(FAULTS)"

lint: .venv/native
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint

format: .venv/native
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Where this fails, the other targets do without the library.
native: .venv/installed
	$(BIN)/python -m workers.native.compiler

# Both distributions. That of the server has the native library, and is for machines such as this one.
wheel: .venv/installed
	$(BIN)/hatchling build --target wheel --directory dist
	cd deploy/server && ../../$(BIN)/hatchling build --target wheel --directory ../../dist

# The stubs are committed; a test holds them to what this makes.
proto: .venv/installed
	PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --mypy_out=quiet:. \
	  $(STUBS:%=proto/nablad/v1/%.proto)
	PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --grpc_python_out=. --mypy_grpc_out=quiet:. \
	  $(SERVICES:%=proto/nablad/v1/%.proto)

docs: .venv/native
	$(BIN)/python -m nablad.cli.reference > docs/cli.md
	$(BIN)/python -m service.metrics.table > docs/metrics.md

boards: .venv/native
	$(BIN)/python -m deploy.grafana

# The head of the file stays.
RULE := deploy/kubernetes/monitoring/prometheus-rule.yaml
rules:
	sed -i '/^spec:/q' $(RULE)
	sed 's/^./  &/' deploy/prometheus/rules/nablad.yml >> $(RULE)

bench: .venv/bench .venv/native
	$(BIN)/python -m benchmarks

bench-load: .venv/native
	$(BIN)/python -m benchmarks.load

bench-soak: .venv/native
	$(BIN)/python -m benchmarks.soak

bench-scrapes: .venv/native
	$(BIN)/python -m benchmarks.scrapes

robustness: .venv/native
	$(BIN)/python -m tests.harness
	$(BIN)/python -m tests.harness.submissions

robustness-long: .venv/native
	$(BIN)/python -m tests.harness --runs 100

clean:
	rm -f workers/native/libnablad.so
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml deploy/server/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' \
	  --editable ./deploy/server
	touch $@

# Again after each change of the C sources.
.venv/native: .venv/installed workers/native/compiler.py $(wildcard workers/native/*.c workers/native/*.h)
	-$(BIN)/python -m workers.native.compiler
	touch $@

# The rivals' libraries on top. PyPI's torch brings CUDA on Linux; benchmarks/README.md says how to do without.
.venv/bench: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]' \
	  --editable ./deploy/server
	touch $@
