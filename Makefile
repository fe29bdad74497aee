# The doors for people. Each sets up what it needs: system packages where it may, and the virtual environment.
#   make image CLASS=classes/docker.yaml    make image ISO=/path/to.iso    make image    make rehearsal
# ARGS adds options, such as ARGS="--accel tcg --console".

PYTHON ?= python3
VENV := .venv
PREBAKE := $(VENV)/bin/prebake
READY := $(VENV)/ready
ISO ?=
RELEASE ?=
CLASS ?=
ARGS ?=
BOOTS := -n 2 --dist loadfile --no-loadscope-reorder
SOURCE = $(if $(CLASS),'$(CLASS)') $(if $(ISO),--iso '$(ISO)') $(if $(RELEASE),--release '$(RELEASE)')

.PHONY: help image iso rehearsal test test-fast test-all lint bench fuzz doctor clean wheel host host-rehearsal host-test

help:
	@echo "make image [CLASS=FILE] [ISO=FILE]   an image from Ubuntu's live-server ISO, in output/"
	@echo "make iso   [CLASS=FILE] [ISO=FILE]   the ISO with the answers inside, for a stick or bare metal"
	@echo "make rehearsal [CLASS=FILE]          the same journey from a medium made on the spot"
	@echo "make test, test-fast    the tests; those that boot nothing"
	@echo "make test-all           also boots much like others"
	@echo "make lint, bench, fuzz, doctor, wheel, clean"

host:
	@PYTHON='$(PYTHON)' scripts/host-setup image

host-rehearsal:
	@PYTHON='$(PYTHON)' scripts/host-setup rehearsal

host-test:
	@PYTHON='$(PYTHON)' scripts/host-setup test

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@

image: host
	@$(MAKE) --no-print-directory $(READY) >&2
	@$(PREBAKE) image $(SOURCE) --force $(ARGS)

iso: host
	@$(MAKE) --no-print-directory $(READY) >&2
	@$(PREBAKE) iso $(SOURCE) --force $(ARGS)

rehearsal: host-rehearsal
	@$(MAKE) --no-print-directory $(READY) >&2
	@$(PREBAKE) image $(if $(CLASS),'$(CLASS)') --medium rehearsal --offline --force $(ARGS)

doctor: $(READY)
	@$(PREBAKE) doctor $(ARGS)

test: host-test
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/pytest -m "not boot" -q -n auto --dist worksteal
	$(VENV)/bin/pytest -m "boot and not rare" -v $(BOOTS)

test-all: host-test
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/pytest -m "not boot" -q -n auto --dist worksteal
	$(VENV)/bin/pytest -m boot -v $(BOOTS)

test-fast: host-test
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/pytest -m "not boot" -q -n auto --dist worksteal

lint: host-test
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/shellcheck scripts/host-setup templates/guest/*.sh builder/rehearsal/hooks/* .ci/run
	$(VENV)/bin/shellcheck -s sh builder/rehearsal/live/initrd/scripts/casper \
	    builder/rehearsal/live/root/usr/bin/curtin builder/rehearsal/live/root/usr/lib/rehearsal/*

bench: host-rehearsal
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/python -m benchmarks

fuzz: host-test
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/pip install --quiet --editable '.[fuzz]'
	$(VENV)/bin/python -m benchmarks.fuzz_console
	$(VENV)/bin/python -m benchmarks.fuzz $(ARGS)

wheel:
	@$(MAKE) --no-print-directory $(READY)
	$(VENV)/bin/pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis output/.*.building-*
