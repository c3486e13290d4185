# `make demo` makes a picture, `make test` runs the tests, `make check` is what every commit passes; each installs what it needs.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
FRESH  := build/fresh
OLDEST := build/oldest
# A worker for each core, of one thread.
FLAGS  := -q -n auto --maxprocesses 4 --durations=25
PYTEST := $(BIN)/python -m pytest $(FLAGS)
# The packages of plugins/, which the tests run with.
PLUGINS := $(wildcard plugins/*/pyproject.toml)
EDITABLE := $(PLUGINS:%/pyproject.toml=-e %)

.PHONY: demo test long portable portable-all bad-input kill test-all check oldest lint types wheel-test docs gpu gpu-wheels clean

demo: $(VENV)/.installed
	$(BIN)/lsregen generate \
		--prompt "a red circle and a blue square" \
		--box "red circle=0.05,0.1,0.45,0.5" --box "blue square=0.55,0.5,0.95,0.9" \
		--seed 0 --out demo --name demo
	@echo "The picture: demo/demo-0.png; with its boxes: demo/demo-0-layout.png; where each phrase looked: demo/demo-0-attention.png"

test: $(VENV)/.installed-test
	$(PYTEST)

long: $(VENV)/.installed-test
	$(PYTEST) -m long

# Every option of every command, and every argument of every public callable, with values that nobody can have meant.
bad-input: $(VENV)/.installed-test
	$(BIN)/python -m tests.bad_input

# Killed at twenty random moments each, and repeated.
kill: export LSREGEN_KILLS = 20
kill: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m long tests/apps/generating/test_killed.py

# The tests that compare numbers, with other roundings (docs/explanation/numbers.md): perturbed, and as two other processors round.
NUMERIC := tests/samplers tests/distances tests/extractors tests/parity tests/models/networks tests/framework/guidance \
	tests/framework/layout/test_rasters.py tests/framework/test_reductions.py \
	$(addprefix tests/framework/sampling/test_,$(addsuffix .py,loop attention_trace)) \
	$(addprefix tests/framework/pipeline/test_,$(addsuffix .py,pipeline stream)) \
	$(addprefix tests/models/,$(addsuffix .py,weights/test_convert runtime/test_guided runtime/test_latent_diffusion \
	runtime/test_offload runtime/test_tiling))

portable: $(VENV)/.installed-test
	$(PYTEST) $(NUMERIC) --perturb
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) $(NUMERIC)
	MKL_CBWR=COMPATIBLE $(PYTEST) $(NUMERIC) --odd-offsets

# The whole suite under each of them; with make -k the others are run after a failure.
VARIANTS := --perturb --perturb_--perturb-seed=1 --odd-offsets --threads=2 ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 \
	MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41

portable-all: $(addprefix portable-all/,$(VARIANTS))

# A variant is options of pytest, joined by _, or a variable of the environment.
portable-all/%: $(VENV)/.installed-test
	$(if $(filter --%,$*),,$*) $(PYTEST) $(if $(filter --%,$*),$(subst _--, --,$*))

# Where there is a Chromium, tests that need one may not be skipped for want of what drives it.
test-all: export LSREGEN_REQUIRE_BROWSER ?= $(if $(shell for name in chromium chromium-browser google-chrome chrome; do command -v $$name; done),1,0)
test-all: test long portable lint wheel-test docs

check: lint
	$(PYTEST) -m "not slow and not long and not parity"

# The quick tests with the lowest versions that pyproject.toml declares, on the oldest Python. Downloads another PyTorch: gigabytes.
# Warnings are shown, and are no errors: old versions warn of the newer ones that they use.
oldest: PYTHON := $(if $(shell command -v python3.11),python3.11,$(PYTHON))
oldest:
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -c "import sys; assert sys.version_info[:2] == (3, 11), f'needs Python 3.11, not {sys.version}'"
	$(OLDEST)/bin/python -m pip install -q -c constraints.txt uv
	$(OLDEST)/bin/uv pip install -q --python $(OLDEST)/bin/python --resolution lowest-direct -e ".[test]" $(EDITABLE)
	$(OLDEST)/bin/python -m pytest $(FLAGS) -W default -m "not slow and not long"

lint: $(VENV)/.installed-test types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The built wheel in an environment of its own: the only thing that shows a missing package or data file.
wheel-test: $(VENV)/.installed-test
	rm -rf $(FRESH) build/lib dist
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python -m pip install -q -c constraints.txt dist/*.whl
	cd $(FRESH) && HF_HUB_OFFLINE=1 ./bin/lsregen generate \
		--prompt "a red circle and a blue square" \
		--box "red circle=0.05,0.1,0.45,0.5" --box "blue square=0.55,0.5,0.95,0.9" --steps 10 --out pictures --name wheel
	test -s $(FRESH)/pictures/wheel-0.png
	$(FRESH)/bin/python -m pip install -q -c constraints.txt ./examples/lsregen-centre pytest
	$(FRESH)/bin/lsregen plugins | grep -q lsregen-centre
	cd $(FRESH) && ./bin/python -m pytest -q ../../examples/lsregen-centre/tests
	$(FRESH)/bin/python -m pip install -q -c constraints.txt $(PLUGINS:%/pyproject.toml=./%)
	cd $(FRESH) && ./bin/lsregen study make --help > /dev/null && ./bin/lsregen caption --help > /dev/null
	$(FRESH)/bin/lsregen plugins | grep -q lsregen-ray

# Every warning is an error: a name that moved, a page that nothing leads to.
docs: $(VENV)/.installed-docs
	rm -rf build/docs
	LSREGEN_PLUGINS= $(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	@echo "The documentation: build/docs/index.html"

# What only a machine with a card can show, in at most eight minutes. GPU_PYTHON: a Python that has PyTorch for the card; nothing
# is installed into it, and what it lacks is taken from the wheels of `make gpu-wheels`, if they are here.
GPU_PYTHON  ?= $(BIN)/python
GPU_OPTIONS ?=
GPU_WHEELS  := build/gpu-wheels
GPU_SITE    := build/gpu-site
GPU_RUN     := PYTHONPATH=$(GPU_SITE):build/types $(GPU_PYTHON)

gpu: types $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/.installed-test)
	rm -rf $(GPU_SITE) && mkdir -p $(GPU_SITE)
	if ls $(GPU_WHEELS)/*.whl > /dev/null 2>&1; then \
		$(GPU_PYTHON) -m pip install -q --no-index --no-deps --no-compile --target $(GPU_SITE) $(GPU_WHEELS)/*.whl; \
	fi
	$(GPU_PYTHON) -c "import setuptools; setuptools.setup()" -q egg_info --egg-base $(GPU_SITE)
	$(GPU_RUN) -m benchmarks.gpu --json benchmarks/results/gpu.json $(GPU_OPTIONS); status=$$?; \
		if [ $$status -le 1 ]; then $(GPU_RUN) -m benchmarks.table; fi; exit $$status

# What a machine with PyTorch and transformers, but without a network, may lack; all of it runs on any machine.
gpu-wheels: $(VENV)/bin/python
	rm -rf $(GPU_WHEELS)
	$(BIN)/python -m pip download -q --no-deps --only-binary=:all: -c constraints.txt -d $(GPU_WHEELS) \
		click diffusers einops importlib_metadata omegaconf pluggy tqdm zipp
	@test -z "$$(ls $(GPU_WHEELS) | grep -v -e '-none-any.whl$$')" || { echo "not for any machine:"; ls $(GPU_WHEELS); exit 1; }
	@echo "The wheels: $(GPU_WHEELS)"

# Type checkers cannot follow an editable install's import hook: give them a path.
types:
	mkdir -p build/types && ln -sfn ../.. build/types/lsregen

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt $(PLUGINS)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]" $(EDITABLE)
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs,eval]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist demo outputs *.egg-info
