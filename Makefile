# docker-lite: each target is a thin call of cargo or of a script in integration/scripts.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
STACK ?= $(CURDIR)/.run/stack
S := integration/scripts
BIN := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/release
STATIC := -C target-feature=+crt-static -C relocation-model=static
# What starts on every container is built for speed with all that is in it; so it is smaller, too.
FAST := CARGO_PROFILE_RELEASE_OPT_LEVEL=3
export LITE_BIN_DIR ?= $(abspath $(BIN))
# A failed test says why in one line; a backtrace behind it hides that.
export RUST_BACKTRACE := 0

.PHONY: help deps build lint test unit itest test-vm test-vm-systemd budgets drill bench bench-runtime run up down proto install uninstall clean

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

deps: ## Install what building and running needs (Debian packages)
	@$(S)/deps run

build: ## Build the five programs into target/release (shim and runc-lite static)
	$(CARGO) build --release --locked -p cli -p daemon -p containerd-lite
	$(FAST) $(CARGO) rustc --release --locked -p shim --bin containerd-shim-lite-v2 -- $(STATIC)
	$(FAST) $(CARGO) rustc --release --locked -p runc-lite --bin runc-lite -- $(STATIC)

run: deps build ## Run one container through all five programs in a private directory, show the chain, clean up
	$(S)/tidy $(S)/run

up: deps build ## Start a stack that stays, in STACK
	$(S)/stack up $(STACK)

down: ## Stop the stack of `make up`
	$(S)/stack down $(STACK)

lint: ## Formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: ## Tests beside the code and tests of single programs (some as root)
	$(CARGO) test --locked --no-fail-fast --workspace --exclude integration

itest: ## The five programs on this kernel beside real peers (as root)
	$(CARGO) test --locked --no-fail-fast -p integration -- --test-threads=1 --nocapture

budgets: ## Static linking, sizes and crate counts of shim and runc-lite
	$(S)/budgets

test-vm: ## runc-lite on cgroup v2 in a small VM (needs a build)
	$(S)/vm

test-vm-systemd: ## runc-lite with the systemd driver and AppArmor in a VM with systemd (needs a build; makes an image once)
	$(S)/vm-systemd

test: ## What CI runs: everything above, with times
	$(S)/deps test
	$(S)/timed build $(MAKE) build
	$(S)/timed budgets $(MAKE) budgets
	$(S)/timed unit $(S)/tidy $(MAKE) unit
	$(S)/timed itest $(S)/tidy $(MAKE) itest
	$(S)/timed vm $(MAKE) test-vm

drill: build ## The long tests in full; goes on where an interrupted run stopped
	$(S)/deps test
	$(S)/tidy $(S)/drill

bench: build ## Ours beside docker's, medians of interleaved runs
	$(S)/deps test
	$(S)/tidy $(S)/bench

bench-runtime: build ## runc-lite beside crun, runc and the bare kernel work
	$(S)/tidy $(S)/bench-runtime

proto: ## Generate proto/src/generated from the .proto files
	$(CARGO) run -q --locked -p proto --example generate

install: build ## Install programs and systemd units below PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(addprefix $(BIN)/,docker-lite dockerd-lite containerd-lite containerd-shim-lite-v2 runc-lite) $(DESTDIR)$(PREFIX)/bin
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(BIN)/docker-lite man $(DESTDIR)$(PREFIX)/share/man/man1
	$(BIN)/docker-lite completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/docker-lite
	$(BIN)/docker-lite completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_docker-lite
	$(BIN)/docker-lite completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/docker-lite.fish
	for unit in dockerd-lite.service containerd-lite.service; do sed 's#@PREFIX@#$(PREFIX)#' integration/units/$$unit >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; done

uninstall: ## Remove what `make install` put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,docker-lite dockerd-lite containerd-lite containerd-shim-lite-v2 runc-lite)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/systemd/system/,dockerd-lite.service containerd-lite.service)
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/docker-lite.1 $(DESTDIR)$(PREFIX)/share/man/man1/docker-lite-*.1
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions/docker-lite zsh/site-functions/_docker-lite fish/vendor_completions.d/docker-lite.fish)

clean: ## Remove what was built
	$(CARGO) clean
