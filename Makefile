# The two commands: `make run` brings the demo up, `make test` checks everything. Both set up what they need, once.

VENV     := .venv
BIN      := $(VENV)/bin
PROFILE  := profiles/dev.toml
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
VMTUI    := $(SUDO) $(BIN)/vmtui

RUN_PACKAGES   := ca-certificates conmon dnsmasq-base golang-github-containers-common iproute2 nftables \
                  qemu-system-x86 qemu-utils runc skopeo
TEST_PACKAGES  := acpica-tools binutils busybox-static chromium cpio crun docker-registry dropbear-bin e2fsprogs fish golang-github-opencontainers-specs-dev kmod less mmdebstrap openssh-client procps putty-tools tmux umoci vim-tiny zsh
BENCH_PACKAGES := htop lnav podman
# What only a host with working KVM can show. These end every `make test`; `make lab` runs all there are. In two labs at
# once, since a guest keeps one processor busy.
LAB_CORE       := -m "lab and not thorough"
LAB_BOOT       := $(LAB_CORE) tests/lab/test_vmm_boot.py tests/lab/test_vmm_systemd.py
LAB_USE        := $(LAB_CORE) tests/lab/test_vmm_devices.py tests/lab/test_dev_profile.py
LAB_S          := 900
# Plug-ins by name: with those that are found by themselves it takes twice as long until the first test begins. A test's
# time leaves the lab enough of its own to be begun once more.
IN_THE_LAB      = $(BIN)/python -m tests.lab.host --timeout $(LAB_S) --report build/$(@:.%=%) \
                  --env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 -- \
                  $(BIN)/pytest -p pytest_asyncio.plugin -p pytest_timeout --timeout 240 \
                  --junitxml=/run/lab/out/report.xml --durations=10

.PHONY: run test thorough snapshots kills fuzz bench down lab lab-shell setup packages test-packages bench-packages clean

run: setup
	@$(VMTUI) --profile $(PROFILE)
	@echo
	@echo "  see it      $(VMTUI) ls"
	@echo "  the panel   $(VMTUI)"
	@echo "  a shell     $(VMTUI) exec -it vm/guest -- sh"
	@echo "  take down   make down"

test: setup test-packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory --jobs 3 .types .tests .lab-files
	@$(MAKE) --no-print-directory --jobs 2 --output-sync .lab-boot .lab-use

.PHONY: .types .tests .lab-files .lab-boot .lab-use
.types:
	$(BIN)/mypy

.tests:
	$(BIN)/pytest --numprocesses auto -m "not thorough"

.lab-boot:
	$(IN_THE_LAB) $(LAB_BOOT)

.lab-use:
	$(IN_THE_LAB) $(LAB_USE)

# What the lab boots: fetched while the tests wait.
.lab-files:
	$(BIN)/python -m tests.lab.host --fetch >/dev/null

# The golden texts and pictures anew. Look at what changed.
snapshots: setup test-packages
	VMTUI_REGENERATE=1 $(BIN)/pytest tests/golden
	git status --short snapshots docs

# What `make test` leaves out to end soon, and its properties with other examples: see tests/conftest.py.
thorough: setup test-packages
	$(BIN)/pytest --numprocesses auto -m "thorough or hypothesis" --hypothesis-profile random --ignore tests/lab

kills: setup test-packages
	VMTUI_EVERY_POINT=1 $(BIN)/pytest tests/integration/test_crash_real.py

# A million operations for each device model, other ones each time.
fuzz: setup test-packages
	VMTUI_FUZZ_OPERATIONS=1000000 VMTUI_FUZZ_SEED=$$(date +%s) $(BIN)/pytest tests/fuzz

bench: setup test-packages bench-packages
	$(SUDO) $(BIN)/python -m bench

down:
	@$(VMTUI) --profile $(PROFILE) --down --purge --yes

# A machine with a KVM that works, on this one; its tests, and a shell in it.
lab: LAB_S := 2700
lab: setup test-packages
	$(IN_THE_LAB) -m lab tests/lab

lab-shell: setup test-packages
	@$(BIN)/python -m tests.lab.host --shell

setup: packages $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vmtui needs Python 3.11 or newer" >&2; exit 1; }
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# A fresh machine has no package lists, and Debian splits venv off: both are seen to here.
packages:
	@python3 -c 'import ensurepip' 2>/dev/null || set -- python3-venv; \
	 $(MAKE) --no-print-directory .apt NEED="$(RUN_PACKAGES) $$*" MUST_KNOW=linux-image-cloud-amd64

test-packages:
	@$(MAKE) --no-print-directory .apt NEED="$(TEST_PACKAGES)"

bench-packages:
	@$(MAKE) --no-print-directory .apt NEED="$(BENCH_PACKAGES)"

.PHONY: .apt
.apt:
	@for package in $(NEED); do \
	   dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$package"; \
	 done; \
	 if [ -n "$$missing" ] || { [ -n "$(MUST_KNOW)" ] && ! apt-cache show $(MUST_KNOW) >/dev/null 2>&1; }; then \
	   echo "Debian packages to install:$${missing:- none, but the package lists are missing}"; \
	   $(SUDO) apt-get update -q >/dev/null; \
	   [ -z "$$missing" ] || $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	     apt-get install -q -y --no-install-recommends $$missing >/dev/null; \
	 fi

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
