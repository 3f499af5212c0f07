# Two commands are all a newcomer needs: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REAL_MEDIA ?= ../shared/media
REAL := $(wildcard $(REAL_MEDIA)/*.mp4)

.PHONY: setup demo test conformance soak check fmt bench lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}; try: make PYTHON=python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) .ci/make_venv.py $(VENV)
	@echo "installing into $(VENV): the first time takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@touch $@

demo: export PATH := $(CURDIR)/$(BIN):$(PATH)
demo: $(STAMP)
	@mkdir -p demo
	cd demo && endocorpus phantom --source colonoscopic --out raw/colonoscopic --seed 1 --recordings 6
	cd demo && endocorpus build --source colonoscopic
	cd demo && endocorpus verify corpora/colonoscopic
	cd demo && endofm preview --corpus corpora/colonoscopic --config debug --out views.png
	cd demo && endofm pretrain --corpus corpora/colonoscopic --config debug
	cd demo && endofm report runs/debug
	cd demo && endofm weights inspect runs/debug/backbone.safetensors
ifneq ($(REAL),)
	cd demo && endocorpus build --source folder --privacy public --root $(abspath $(REAL_MEDIA)) --out corpora/real --name real
	cd demo && endocorpus verify corpora/real
endif
	@echo "look at demo/corpora/colonoscopic/report/index.html, demo/views.png and demo/runs/debug/report.html$(if $(REAL), and demo/corpora/real/report/index.html)"

test: $(STAMP)
	$(BIN)/python -m pytest

conformance: $(STAMP)
	$(BIN)/python -m pytest tests/endocorpus/test_conformance.py

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak
	$(BIN)/python -m pytest --hypothesis-profile=fresh $$(grep -rl '@given' tests)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: demo
	$(BIN)/python benchmarks/phantom.py
	$(BIN)/python -m benchmarks.loader --corpus demo/corpora/colonoscopic
	$(BIN)/endofm bench loader --corpus demo/corpora/colonoscopic --step-seconds 1
	$(BIN)/python -m benchmarks.step --depth 3

lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --extra train --extra dev pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) demo
