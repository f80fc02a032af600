# Everything is built in cargo's dev profile, which is optimised: RocksDB is then compiled once for
# running, testing and linting. Every target selects the whole workspace for the same reason: another
# selection unifies features differently, and compiles dependencies anew.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ARGS ?=

.PHONY: help demo test bench sim chaos fuzz lint build fmt needs

help:
	@echo 'make demo    three nodes on this machine, a load, a kill -9, and the proof that nothing was lost'
	@echo 'make test    every test'
	@echo 'make bench   the cluster beside raw RocksDB, and under ten times what it can take'
	@echo 'make sim     simulated clusters under faults: SEEDS=300 of them, SEED=7 the same one again'
	@echo 'make chaos   five processes killed, stopped, cut off, misled and starved: DURATION=30m or ROUNDS=1000 kills, SEED=7'
	@echo 'make fuzz    every decoder fed with bytes that are nearly right, a minute each: SECONDS_EACH=10, TARGET=state, SEED=7'
	@echo 'make lint    formatting, clippy and rustdoc, warnings denied'
	@echo 'make build   the binaries, in $(TARGET_DIR)/debug'
	@echo 'make fmt     formats the sources'
	@echo 'ARGS="..." is passed on to demo, test, bench, sim, chaos and fuzz. The first build takes long: it compiles RocksDB.'

demo: build
	$(TARGET_DIR)/debug/starling demo $(ARGS)

test: build
	TEST_BIN_DIR='$(abspath $(TARGET_DIR))/debug' $(CARGO) test --workspace --locked $(ARGS)

bench: build
	$(TARGET_DIR)/debug/starling-bench $(ARGS)

# SEEDS says how many fresh seeds; SEED repeats one.
sim: build
	$(TARGET_DIR)/debug/starling-sim $(ARGS)

# DURATION and ROUNDS (of kill -9) say how long; SEED repeats what is tried. `ARGS="--only kill"` does nothing else.
chaos: build
	$(TARGET_DIR)/debug/starling-chaos $(ARGS)

# SECONDS_EACH, TARGET and SEED as in the help.
fuzz: build
	$(TARGET_DIR)/debug/starling-fuzz $(ARGS)

lint:
	@.ci/needs lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --document-private-items --locked --quiet

build: needs
	$(CARGO) build --workspace --bins --locked

fmt:
	$(CARGO) fmt --all

needs:
	@.ci/needs
