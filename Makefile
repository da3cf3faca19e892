# `make` lists the targets; `make setup demo` is the shortest way in.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first Python on the path that requirements.lock is made for.
PYTHON = $(shell for name in python3 python3.11 python3.12 python3.13; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$name && break; done)

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
DEVICE := cpu

.PHONY: help
help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: setup
setup: $(READY) ## Install everything into .venv

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed on the path"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: $(READY) ## Explain a photograph; images in out/demo
	$(BIN)/candor demo

.PHONY: serve
serve: $(READY) ## Serve the models: gRPC on 8500, REST on 8501; Ctrl-C stops
	@exec $(BIN)/candor serve

.PHONY: test
test: $(READY) ## All tests but the slow ones, with a real TorchServe
	$(BIN)/python -m pytest -m "not slow and not gpu and not wheel"

# `make check` runs two parts of `make test` side by side.  A new room of tests is among the others;
# a room may move from one part to the other so that both take as long.
# What computes gives way to services, whose tests wait for answers.
SERVING := $(addprefix tests/,client deploy gateway handlers interop jobs stack store)

.PHONY: test-serving
test-serving: $(READY) ## The part of `make test` that starts services
	$(BIN)/python -m pytest -m "not slow and not gpu and not wheel" $(SERVING)

.PHONY: test-others
test-others: $(READY) ## The other part of `make test`
	nice $(BIN)/python -m pytest -m "not slow and not gpu and not wheel" $(SERVING:%=--ignore=%)

.PHONY: test-slow
test-slow: $(READY) ## The tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

.PHONY: test-wheel
test-wheel: $(READY) ## The base install in a clean environment: its size, and an image explained
	$(BIN)/python -m pytest -m wheel

.PHONY: test-isa
test-isa: $(READY) ## The numerical tests under every instruction set of this machine
	nice $(BIN)/python -m tools.isa $(ISA)

.PHONY: house
house: $(READY) ## Counts of the tree; HOUSE="--against REV" for two of them side by side
	$(BIN)/python -m tools.house $(HOUSE)

.PHONY: bench
bench: $(READY) ## Every speed claim in one run; CANDOR_DATA and CANDOR_REFERENCE name the folders
	$(BIN)/python -m tools.bench $(BENCH)

.PHONY: bench-train
bench-train: $(READY) ## Time and gradient of a training step with L_adv; CANDOR_DATA names the data
	$(BIN)/python -m tools.bench.train_step $(BENCH)

.PHONY: train-gpu
train-gpu: $(READY) ## A robust model on one GPU in TRAIN="--minutes 10"; the same command goes on
	$(BIN)/python -m tools.train_gpu $(TRAIN)

.PHONY: bench-gpu
bench-gpu: $(READY) ## The engine on one GPU: CUDA graphs, bfloat16, batches up to 512
	$(BIN)/python -m tools.bench.gpu $(BENCH)

.PHONY: fuzz
fuzz: $(READY) ## Hostile inputs by the ten thousand; the table goes into RELIABILITY.md
	$(BIN)/python -m tools.fuzz

.PHONY: faults
faults: $(READY) ## Kill, hang, fill and overload a real service; the table goes into RELIABILITY.md
	$(BIN)/python -m tools.faults

.PHONY: screenshots
screenshots: $(READY) ## Screenshots of the pages into docs/; needs chromium and CANDOR_DATA
	$(BIN)/python -m tools.screenshots

.PHONY: load
load: $(READY) ## Load a service of its own for 2 minutes; report in out/load, table in RELIABILITY.md
	$(BIN)/python -m tests.load $(LOAD)

.PHONY: lint
lint: $(READY) ## Style and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: fmt
fmt: $(READY) ## Rewrite the code in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: type
type: $(READY) ## Types, strict
	$(BIN)/mypy

.PHONY: proto
proto: $(READY) ## Generate stubs and descriptions from proto/
	$(BIN)/python -m tools.generate_pb

.PHONY: check-proto
check-proto: $(READY) ## Fail where stubs, descriptions or pydantic models differ from proto/
	$(BIN)/python -m tools.generate_pb --check
	$(BIN)/python -m tools.contract_drift

.PHONY: locks
locks: $(READY) ## Derive the images' lock files from requirements.lock
	$(BIN)/python -m tools.locks

.PHONY: manifests
manifests: $(READY) ## Build, validate and check every manifest under k8s/; needs kubectl
	$(BIN)/python -m tools.manifests

.PHONY: monitoring
monitoring: $(READY) ## Derive dashboards and the operator's rules from deploy/
	$(BIN)/python -m tools.monitoring

.PHONY: sbom
sbom: $(READY) ## Bill of materials, licences and known holes of what the images hold
	$(BIN)/python -m tools.sbom

.PHONY: image-gateway
image-gateway: ## The gateway's image; BASE_DIGEST=sha256:... of the Python image
	docker build -f deploy/Dockerfile.gateway --build-arg BASE_DIGEST=$(BASE_DIGEST) \
		--build-arg VERSION=$(VERSION) -t candor-gateway:$(VERSION) .

.PHONY: image-worker
image-worker: ## The worker's image; also DEVICE=cpu or cuda, TORCH_INDEX_URL
	docker build -f deploy/Dockerfile.worker --build-arg BASE_DIGEST=$(BASE_DIGEST) \
		--build-arg DEVICE=$(DEVICE) --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL) \
		-t candor-worker:$(VERSION)-$(DEVICE) .

.PHONY: images-check
images-check: $(READY) ## Build both images from a local base, explain through them; root, buildah
	$(BIN)/python -m tools.images $(IMAGES)

.PHONY: lint-imports
lint-imports: $(READY) ## Who may import whom: rooms and layers
	PYTHONPATH=. $(BIN)/lint-imports

.PHONY: docs
docs: $(READY) ## The API reference into out/docs; a broken reference fails
	$(BIN)/python -m sphinx -W -n -b html docs out/docs

# The quickest first, so that they fail early; then the longest, so that both lanes end together.
CHECKS := lint lint-imports test-others test-serving test-isa docs test-wheel type check-proto
JOBS := 2

.PHONY: check
check: $(READY) ## All that must hold, JOBS=2 at a time; what CI runs
	@OMP_WAIT_POLICY=passive $(MAKE) --no-print-directory --jobs=$(JOBS) --output-sync=target $(CHECKS)
