PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATASET ?= pydocs
ARCH ?= lejepa
# Where the pairs of `make beat` are from; and whose vectors, by fingerprint, where several encoders are cached.
PAIRS ?= msmarco
ENCODER ?=
TUNE = $(BIN)/ragcun-cache tune --skip-stored $(if $(ENCODER),--encoder $(ENCODER))
HEADS = lejepa_ten_seeds lejepa_variants

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all lint encode train eval report results bench bench-encode bench-eval bench-train beat beat-tune clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  DATASET=$(DATASET) ARCH=$(ARCH) choose what encode, train and eval work on"

setup: $(VENV)/.ready ## make the virtual environment with the tested versions

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: setup ## the main job on the built-in collection: encode, train, evaluate, leaderboard
	$(BIN)/ragcun-cache encode --dataset pydocs
	$(BIN)/ragcun-cache train-head --dataset pydocs --arch untrained
	$(BIN)/ragcun-cache train-head --dataset pydocs --arch isotropy
	$(BIN)/ragcun-cache train-head --dataset pydocs --arch lejepa
	$(BIN)/ragcun-cache eval --dataset pydocs

test: setup ## lint, types, and all tests that need neither a network nor real weights
	$(MAKE) lint
	$(BIN)/pytest -q

test-all: setup ## the same and the tests on the real all-mpnet-base-v2
	$(MAKE) lint
	$(BIN)/pytest -q -m ''

lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

encode: setup ## cache the vectors of DATASET
	$(BIN)/ragcun-cache encode --dataset $(DATASET)

train: setup ## train a head of ARCH on DATASET
	$(BIN)/ragcun-cache train-head --dataset $(DATASET) --arch $(ARCH)

eval: setup ## evaluate every head on DATASET (or several: DATASET=scifact,nfcorpus), the raw encoder first
	$(BIN)/ragcun-cache eval --dataset $(DATASET)

report: setup ## write data/report.html, a page of everything that is known of the results
	$(BIN)/ragcun-cache report

results: setup ## write docs/results.md from the results store
	$(BIN)/ragcun-cache leaderboard --markdown docs/results.md

beat: setup ## tune, and train heads, on scifact and nfcorpus beside raw (hours), write docs/beating_raw.md; see PAIRS
	$(MAKE) beat-tune
	for recipe in pipelines/tune/few_labels_*.yaml; do $(TUNE) --config $$recipe --seeds 0-19 || exit 1; done
	for recipe in pipelines/tune/null_*.yaml; do $(TUNE) --config $$recipe --seeds 0-9 || exit 1; done
	mkdir -p data/recipes
	for name in $(HEADS); do \
	  sed 's/dataset: msmarco,/dataset: $(PAIRS),/' pipelines/$$name.yaml > data/recipes/$$name.yaml && \
	  $(BIN)/ragcun-cache ablate data/recipes/$$name.yaml || exit 1; done
	$(BIN)/python -m benchmarks.shuffled_heads --dataset $(PAIRS)
	$(BIN)/python -m benchmarks.beating_raw $(HEADS:%=--recipe data/recipes/%.yaml)

beat-tune: setup ## of that, the four recipes of tune alone; ENCODER=fingerprint for those of a second encoder
	for recipe in pipelines/tune/zero_shot_*.yaml pipelines/tune/in_domain_*.yaml; do \
	  $(TUNE) --config $$recipe --seeds 0-4 || exit 1; done

bench: setup ## measure speed beside named peers, write docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-encode: setup .venv-peers/.ready ## the same for encoding alone, sentence-transformers' own backends among the peers
	$(BIN)/python -m benchmarks encode

bench-eval bench-train: setup ## the same for evaluation or training alone
	$(BIN)/python -m benchmarks $(@:bench-%=%)

.venv-peers/.ready: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet torch==2.13.0
	.venv-peers/bin/pip install --quiet --requirement benchmarks/peers.txt
	.venv-peers/bin/pip install --quiet --no-deps optimum-intel==1.27.0
	@touch $@

clean: ## remove the virtual environment and tool caches; data/ is kept
	rm -rf $(VENV) .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
