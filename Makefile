# `make` says what there is. Each target is a line here or a script in scripts/.
.DEFAULT_GOAL := help
.PHONY: help run demo test test-versions conformance bench check lint fmt docs map

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: ## Weir on 127.0.0.1:6380 in front of a Redis on 6379 (started if none answers)
	@scripts/run

demo: ## 2,000 clients and a Redis that allows 64: first without Weir, then with
	@scripts/demo

test: ## Every test, from nothing
	@scripts/test

test-versions: ## The integration tests against Redis 6.2 and Valkey 9 too
	@scripts/test-versions

conformance: ## Redis's own test suite, directly and through Weir, compared
	@scripts/conformance $(ARGS)

bench: ## Weir beside other proxies and Redis itself; options in ARGS="--help"
	@scripts/bench $(ARGS)

check: lint test ## What CI runs

lint: ## Format, clippy, the floor plan, the documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo test --quiet --test import_map
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --quiet

fmt: ## Formats the code
	cargo fmt --all

docs: ## The code's documentation, in target/doc
	cargo doc --no-deps --document-private-items

map: ## Who imports whom, by floor
	@cargo test --quiet --test import_map imports_point_down -- --nocapture
