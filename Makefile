# Racimo: everything a person runs. `make` alone lists the targets.
#
# Needs root: demo, lab*, and the tests with real boards in `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO  ?= cargo
LAB    ?= lab
BOARDS ?= 3
N      ?=
PAGE   ?= 80
FROM   ?=
CMD    ?=
DO     ?=
SEEDS  ?= 2000
CASES  ?= 4096
FOR    ?= 10
KILLS  ?= 300
IMG    ?=
OUT    ?=
ARCH   ?=
SUITE  ?= bookworm
PAGES  ?= 4k
TASKS  ?= 0,10,50
PROFILE ?= worker
JOIN   ?=
WIFI_POWER_SAVE ?= off
TARGET ?= armv7-unknown-linux-musleabihf
PART   ?=
TARGETS ?= aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf arm-unknown-linux-musleabihf
FUZZ_TARGETS := common/fuzz/wire common/fuzz/mdns common/fuzz/text manager/fuzz/api manager/fuzz/state manager/fuzz/log

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN_DIR    ?= $(TARGET_DIR)/debug
LAB_TOOL   := $(BIN_DIR)/examples/lab
export RACIMO_BIN_DIR := $(abspath $(BIN_DIR))

DEBS   ?= $(TARGET_DIR)/dist

# program:package pairs. Only what is missing is installed.
DEPS := containerd:containerd runc:runc docker-registry:docker-registry protoc:protobuf-compiler \
        cc:gcc musl-gcc:musl-tools dig:dnsutils ip:iproute2 nft:nftables nsenter:util-linux mount:mount \
        curl:curl wrk:wrk
# Looked up by package: plain busybox has busybox-static's program name, and kill
# (procps), which tests run, is also built into the shell.
DEPS_PACKAGES := busybox-static ca-certificates libc6-dev procps tini

.PHONY: help deps deps-test build lab lab-env lab-board lab-curl lab-exec lab-manager lab-status lab-down demo demo-clean \
        check test test-root sim bench fuzz fuzz-random agent-size agent-armv7 image test-images test-image test-arm cross \
        dist test-packages reproducible

help: ## list the targets
	@echo "Racimo. The two commands to know (as root): make demo, make test"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: LAB=name BOARDS=n N=board DO=verb PAGE=port FROM=board CMD=command SEEDS=n CASES=n FOR=seconds"
	@echo "           IMG=file OUT=file ARCH=arm64|armhf SUITE=bookworm|trixie PAGES=4k|16k TASKS=n,n PROFILE=worker|manager DEBS=directory JOIN=file"
	@echo "           TARGET=triple TARGETS=triples PART=agent|manager"

deps: ## install through apt what building and the lab need (only what is missing)
	@export PATH="$$PATH:/usr/sbin:/sbin"; missing=(); \
	for pair in $(DEPS); do command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}"); done; \
	for package in $(DEPS_PACKAGES); do \
	  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$$package"); done; \
	command -v $(CARGO) >/dev/null || { \
	  echo "make deps: cargo is not on the PATH. Install Rust 1.85 or newer (https://rustup.rs);" \
	       "under sudo keep it visible: sudo env PATH=\"\$$PATH\" make ..." >&2; exit 1; }; \
	if [ "$${#missing[@]}" -eq 0 ]; then echo "deps: everything is here"; exit 0; fi; \
	echo "deps: missing: $${missing[*]}"; \
	[ "$$(id -u)" -eq 0 ] || { echo "make deps: run as root to install: $${missing[*]}" >&2; exit 1; }; \
	command -v apt-get >/dev/null || { echo "make deps: no apt-get here; install by hand: $${missing[*]}" >&2; exit 1; }; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	if [[ " $${missing[*]} " == *" docker-registry "* ]] && [ -d /run/systemd/system ]; then \
	  echo "deps: Debian starts a registry on port 5000 of every address; the lab has its own, so that one is switched off"; \
	  systemctl disable --now docker-registry; fi

# Only the client is unpacked: installing the package would start a Docker
# daemon that changes this machine's packet filter.
deps-test: deps ## what the tests need on top: iptables, a WireGuard outside of the kernel, libfaketime, tools for images, docker's clients
	@export PATH="$$PATH:/usr/sbin:/sbin"; missing=(); \
	for pair in iptables-nft:iptables wireguard-go:wireguard-go python3:python3 mcopy:mtools mkfs.vfat:dosfstools \
	  sfdisk:fdisk debugfs:e2fsprogs xz:xz-utils unzip:unzip mmdebstrap:mmdebstrap ssh:openssh-client; do \
	  command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}"); done; \
	ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing+=(libfaketime); \
	python3 -c 'import docker' 2>/dev/null || missing+=(python3-docker); \
	[ "$${#missing[@]}" -eq 0 ] || [ "$$(id -u)" -ne 0 ] || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"; }
	@command -v docker >/dev/null && { echo "deps-test: everything is here"; exit 0; }; \
	[ "$$(id -u)" -eq 0 ] || { echo "make deps-test: run as root to install the docker client" >&2; exit 1; }; \
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; chmod 755 "$$dir"; cd "$$dir"; apt-get update -qq; \
	package=docker-cli; apt-cache show docker-cli >/dev/null 2>&1 || package=docker.io; \
	apt-get download -qq "$$package"; dpkg-deb -x "$$package"_*.deb tree; \
	install -m 755 tree/usr/bin/docker /usr/local/bin/docker; docker --version

build: ## build manager, agent and the lab (debug)
	$(CARGO) build --workspace --bins --example lab

# For targets that act on a lab which `make lab` or `make demo` has started.
WITH_LAB = @[ -x $(LAB_TOOL) ] || { echo "make $@: nothing is built, so no lab runs: make lab" >&2; exit 1; }; $(LAB_TOOL) --lab $(LAB)

lab: deps build ## start a lab: LAB=lab BOARDS=3
	$(LAB_TOOL) --lab $(LAB) up --boards $(BOARDS)

lab-env: ## shell exports of the lab: eval "$(make -s lab-env)"
	$(WITH_LAB) env

lab-board: ## act on a board: N=2 DO=cut|heal|kill-agent|start-agent|power-off|power-on|freeze|thaw
	$(WITH_LAB) board "$(N)" $(DO)

lab-curl: ## fetch from a board: N=2 PAGE=80 (or 8080/path) [FROM=board that asks]
	$(WITH_LAB) curl "$(N)" "$(PAGE)" $(if $(FROM),--from "$(FROM)")

lab-exec: ## run a command on a board's network: N=2 CMD="nft list ruleset"
	$(WITH_LAB) exec "$(N)" $(CMD)

lab-manager: ## act on the manager: DO=kill|start
	$(WITH_LAB) manager $(DO)

lab-status: ## what the lab is made of and how it is doing
	$(WITH_LAB) status

lab-down: ## end the lab; nothing stays behind
	@if [ -x $(LAB_TOOL) ]; then $(LAB_TOOL) --lab $(LAB) down; else echo "lab-down: no lab tool built, so no lab"; fi

demo: deps build ## a cluster in action: 3 boards, a service, a plug pulled (leaves the lab running)
	@LAB=$(LAB) LAB_TOOL=$(abspath $(LAB_TOOL)) manager/tests/lab/demo.sh

demo-clean: lab-down ## end the demo's lab; nothing stays behind

check: ## format, clippy, unit tests, docs, licences: changes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace --lib --bins
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check licenses bans sources; \
	else echo "check: cargo-deny is not installed: licences not checked (cargo install cargo-deny --locked)"; fi

test: deps-test build ## every test; those with real boards need root
	$(CARGO) test --workspace
	$(MAKE) --no-print-directory test-images
	@if [ "$$(id -u)" -eq 0 ]; then $(MAKE) --no-print-directory test-root; \
	else echo "make test: NOT RUN, they need root: the tests with real boards (make test-root)"; fi
	$(MAKE) --no-print-directory fuzz-random

# Tests with real boards are marked #[ignore]; each makes its own lab.
test-root: deps-test build ## the tests with real boards, containerd and a registry (root)
	$(LAB_TOOL) sweep
	$(CARGO) test --workspace --tests -- --ignored --test-threads=1
	$(LAB_TOOL) sweep

test-kills: deps-test build ## kill -9 and power cuts at random moments: KILLS=300 rounds of some 8 seconds (root)
	RACIMO_KILLS=$(KILLS) $(CARGO) test -p racimo-manager --test e2e kills -- --ignored --nocapture

sim: ## simulation with SEEDS=2000 seeds
	RACIMO_SIM_SEEDS=$(SEEDS) $(CARGO) test -p racimo-manager --test sim

fuzz-random: ## mutated frames, messages, bodies, logs: RACIMO_FUZZ_CASES=N inputs, RACIMO_FUZZ_SEED=N others
	PROPTEST_CASES=$(CASES) $(CARGO) test --workspace -- fuzz

# libFuzzer wants flags that stable Rust keeps for itself.
fuzz: fuzz-random ## the same, then coverage-guided for FOR=10 seconds a target (cargo install cargo-fuzz --locked)
	@command -v cargo-fuzz >/dev/null || { echo "make fuzz: NOT RUN, cargo-fuzz is not installed: the coverage-guided targets"; exit 0; }; \
	for target in $(FUZZ_TARGETS); do \
	  RUSTC_BOOTSTRAP=1 nice -n 19 $(CARGO) fuzz run --fuzz-dir "$${target%/*}" --target-dir $(abspath $(TARGET_DIR))/fuzz --sanitizer none \
	    "$${target##*/}" -- -max_total_time=$(FOR) -max_len=4096 -verbosity=0 -print_final_stats=1; \
	done

bench: deps ## figures: sizes, memory, latencies (release build, root); CHECK=1 fails over budget
	$(CARGO) build --release -p racimo-agent --bin pi-agent
	$(CARGO) build --release -p racimo-manager --bin pi-mgr --example bench
	@mkdir -p $(TARGET_DIR)/bench && cp $(TARGET_DIR)/release/{pi-agent,pi-mgr} $(TARGET_DIR)/bench/
	RACIMO_BIN_DIR=$(abspath $(TARGET_DIR)/bench) $(TARGET_DIR)/release/examples/bench $(if $(CHECK),--check)

agent-size: ## the agent's file size on this machine's architecture
	$(CARGO) build --release -p racimo-agent
	@stat -c 'pi-agent (host, dynamic): %s bytes' $(TARGET_DIR)/release/pi-agent

agent-armv7: ## static musl agent for 32-bit boards, and its size against the budget
	cross/build.sh armv7-unknown-linux-musleabihf agent

cross: ## static programs for boards, without Docker: TARGET=armv7-unknown-linux-musleabihf [PART=agent|manager]
	cross/build.sh "$(TARGET)" $(PART)

dist: ## tarballs, Debian packages and checksums in target/dist: TARGETS="aarch64-unknown-linux-musl ..."
	@for target in $(TARGETS); do cross/build.sh "$$target"; done
	cross/dist.sh $(TARGETS)

test-packages: build ## install, upgrade and remove the packages in a Debian of their own (root)
	cross/test-packages.sh

test-arm: ## agents and managers for ARM, run by QEMU with a real containerd, after 2038 too (root; builds them)
	@for target in armv7-unknown-linux-musleabihf aarch64-unknown-linux-musl arm-unknown-linux-musleabihf; do cross/build.sh "$$target"; done
	$(CARGO) build -p racimo-manager --bin pi-mgr
	cross/test-arm --manager "$(BIN_DIR)/pi-mgr" --work $(TARGET_DIR)/test-arm \
	  $(TARGET_DIR)/cross/{armv7-unknown-linux-musleabihf,aarch64-unknown-linux-musl}/release/{pi-agent,pi-mgr} \
	  $(TARGET_DIR)/cross/arm-unknown-linux-musleabihf/release/pi-agent

reproducible: ## build TARGET twice, in different directories: the same bytes?
	cross/reproducible.sh "$(TARGET)" $(PART)

image: ## a board's image out of a stock Raspberry Pi OS image: IMG=raspios.img.xz [OUT=board.img] [ARCH=] [PROFILE=worker|manager] [JOIN=racimo.toml] [WIFI_POWER_SAVE=on]
	@[ -n "$(IMG)" ] || { echo "make image: IMG=FILE is needed: a stock Raspberry Pi OS image (.img, .img.xz, .zip)" >&2; exit 1; }
	@mkdir -p $(TARGET_DIR)/images
	@name=$$(basename "$(IMG)"); out="$(OUT)"; \
	images/bake --image "$(IMG)" --output "$${out:-$(TARGET_DIR)/images/$${name%%.*}-racimo.img}" --profile "$(PROFILE)" \
	  --wifi-power-save "$(WIFI_POWER_SAVE)" --debs "$(DEBS)" --cache $(TARGET_DIR)/images/cache \
	  $(if $(ARCH),--arch "$(ARCH)") $(if $(JOIN),--join "$(JOIN)")

test-images: ## images without booting them: what is baked and refused, the first start's programs
	images/test/board.py
	images/test/bake.py

test-image: ## bake a stand-in image, boot it in QEMU, join, run, pull the plug: ARCH=arm64 SUITE=bookworm PAGES=4k TASKS=0,10,50 (root; minutes)
	$(CARGO) build -p racimo-manager --bin pi-mgr
	images/test/run --arch "$(or $(ARCH),arm64)" --suite "$(SUITE)" --debs "$(DEBS)" --manager "$(BIN_DIR)/pi-mgr" --cache $(TARGET_DIR)/images \
	  --pages "$(PAGES)" --tasks "$(TASKS)"
