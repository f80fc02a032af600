# Everything is built in cargo's dev profile, which is optimised: RocksDB is then compiled once for
# running, testing and linting. Every target selects the whole workspace for the same reason: another
# selection unifies features differently, and compiles dependencies anew.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ARGS ?=

.PHONY: help demo test bench sim lint build fmt needs

help:
	@echo 'make demo    three nodes on this machine, a load, a kill -9, and the proof that nothing was lost'
	@echo 'make test    every test'
	@echo 'make bench   the cluster beside raw RocksDB, in one table'
	@echo 'make sim     simulated clusters under faults: SEEDS=300 of them, SEED=7 the same one again'
	@echo 'make lint    formatting, clippy and rustdoc, warnings denied'
	@echo 'make build   the binaries, in $(TARGET_DIR)/debug'
	@echo 'make fmt     formats the sources'
	@echo 'ARGS="..." is passed on to demo, test and bench. The first build takes long: it compiles RocksDB.'

demo: build
	$(TARGET_DIR)/debug/starling demo $(ARGS)

test: build
	TEST_BIN_DIR='$(abspath $(TARGET_DIR))/debug' $(CARGO) test --workspace --locked $(ARGS)

bench: build
	$(TARGET_DIR)/debug/starling-bench $(ARGS)

# SEEDS says how many fresh seeds; SEED repeats one.
sim: build
	$(TARGET_DIR)/debug/starling-sim $(ARGS)

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
