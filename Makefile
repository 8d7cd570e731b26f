PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATASET ?= pydocs
ARCH ?= lejepa
SEEDS ?= 10
PRECISIONS ?= fp32 int8
# The collection whose pairs results, reproduce and beat train on; whose vectors, by fingerprint, where several encoders are cached.
MSMARCO ?= msmarco
ENCODER ?=
OF = $(if $(ENCODER),--encoder $(ENCODER))
TUNE = $(BIN)/ragcun-cache tune --skip-stored $(OF)
ON = --set dataset=$(MSMARCO) $(if $(ENCODER),--set encoder=$(ENCODER))

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all lint encode train eval report results reproduce bench bench-encode bench-precision bench-eval bench-train beat beat-tune clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'
	@echo "  DATASET=$(DATASET) ARCH=$(ARCH) choose what encode, train and eval work on, SEEDS=$(SEEDS) MSMARCO=$(MSMARCO) how often"
	@echo "  and on pairs of which collection results, reproduce and beat train; ENCODER=fingerprint whose vectors, where there"
	@echo "  are several; PRECISIONS=\"$(PRECISIONS)\" those of bench-precision; PYTHON=$(PYTHON) what makes the environment"

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
	$(BIN)/ragcun-cache train-head --dataset $(DATASET) --arch $(ARCH) $(OF)

eval: setup ## evaluate every head on DATASET (or several: DATASET=scifact,nfcorpus), the raw encoder first
	$(BIN)/ragcun-cache eval --dataset $(DATASET) $(OF)

report: setup ## write data/report.html, a page of everything that is known of the results
	$(BIN)/ragcun-cache report

results: setup ## train and evaluate the rows of pipelines/baselines.yaml, where that is not done, and write docs/results.md
	$(BIN)/ragcun-cache ablate pipelines/baselines.yaml $(ON) --markdown docs/results.md

# A recipe of which some runs failed ends with status 1; the page then says which.
reproduce: setup ## run every published row and ablation SEEDS times, from the cache, and write docs/reproduction.md
	$(BIN)/ragcun-cache ablate pipelines/untrained.yaml $(ON) >/dev/null || [ $$? -eq 1 ]
	$(BIN)/ragcun-cache ablate pipelines/seed_table.yaml --seeds 0-$$(($(SEEDS) - 1)) $(ON) >/dev/null || [ $$? -eq 1 ]
	$(BIN)/python -m reproduction --seeds 0-$$(($(SEEDS) - 1)) $(ON)

beat: setup ## tune, and train heads, on scifact and nfcorpus beside raw (hours), write docs/beating_raw.md
	$(MAKE) beat-tune
	for recipe in pipelines/tune/few_labels_*.yaml; do $(TUNE) --config $$recipe --seeds 0-19 || exit 1; done
	for recipe in pipelines/tune/null_*.yaml; do $(TUNE) --config $$recipe --seeds 0-9 || exit 1; done
	for name in lejepa_choice lejepa_choice_wider lejepa_ten_seeds lejepa_fresh_queries; do $(BIN)/ragcun-cache ablate pipelines/$$name.yaml $(ON) || exit 1; done
	$(BIN)/python -m benchmarks.shuffled_heads --dataset $(MSMARCO) $(OF)
	$(BIN)/python -m benchmarks.beating_raw $(ON)

beat-tune: setup ## of that, the four recipes of tune alone; ENCODER=fingerprint for those of a second encoder
	for recipe in pipelines/tune/zero_shot_*.yaml pipelines/tune/in_domain_*.yaml; do \
	  $(TUNE) --config $$recipe --seeds 0-4 || exit 1; done

bench: setup ## measure speed beside named peers, write docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-encode: setup .venv-peers/.ready ## the same for encoding alone, sentence-transformers' own backends among the peers
	$(BIN)/python -m benchmarks encode encode_engines

bench-precision: setup ## what each of PRECISIONS costs in NDCG@10 on scifact and nfcorpus (hours; plain eval and train then need ENCODER)
	for dataset in scifact nfcorpus; do for precision in $(PRECISIONS); do \
	  $(BIN)/ragcun-cache encode --dataset $$dataset --precision $$precision || exit 1; done; done
	$(BIN)/python -m benchmarks encode_quality

bench-eval: setup ## the same for evaluation alone
	$(BIN)/python -m benchmarks eval

bench-train: setup ## the same for training alone
	$(BIN)/python -m benchmarks train train_step

.venv-peers/.ready: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet torch==2.13.0
	.venv-peers/bin/pip install --quiet --requirement benchmarks/peers.txt
	.venv-peers/bin/pip install --quiet --no-deps optimum-intel==1.27.0
	@touch $@

clean: ## remove the virtual environment and tool caches; data/ is kept
	rm -rf $(VENV) .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
