# The commands of the project; "make" lists them.
#
# Everything is built with the distribution's own Python and tools, whatever stands first in the
# caller's PATH, and is written to build/ and dist/ alone.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
export PATH := /usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL := C.UTF-8
export PYTHONDONTWRITEBYTECODE := 1
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV

PYTHON := /usr/bin/python3
VENV := .venv
TEST := $(VENV)/bin/python -m pytest
# Every folder of tests/ that holds a tier; a tier that this machine cannot run skips with its reason.
TIERS := $(wildcard tests/unit tests/packages tests/instance tests/windows tests/vm)
# PYTEST_ARGS="-k route" narrows "make test".
PYTEST_ARGS ?=

# The packages of the last "make goo"; the runtime among them has a version of its own.
GOOS = $$(sed '1d; s,^,dist/,' build/goo/made-from)

RPM_TARGETS := el8 el9 el10 fedora sles15 sles16

.DEFAULT_GOAL := help
.PHONY: help setup sdist wheel deb dsc deb-lib rpm goo packages repo-apt repo-yum repo-goo publish \
	release check-packages lint test bench demo clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: $(VENV)/made ## install what building and testing need (as root), make .venv
	tools/setup-host
	tools/build-goo --fetch || echo "setup: Windows packages cannot be built without that"

$(VENV)/made: tools/requirements.txt
	tools/setup-host
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tools/requirements.txt
	touch $@

sdist: ## release tarball, complete and buildable without a network
	$(PYTHON) tools/build-sdist

wheel: ## the library as a wheel
	$(PYTHON) tools/build-wheel

deb: ## the Debian packages; GUEST_TARGET=debian13 and others: in a root tree of that release
	$(PYTHON) tools/build-deb

dsc: ## the Debian source package
	$(PYTHON) tools/build-deb --source

deb-lib: ## the library alone as a Debian package, made by stdeb and compared with debian/control
	$(PYTHON) tools/build-deb-lib

rpm: ## the rpm packages of GUEST_TARGET: el8, el9, el10, fedora, sles15 or sles16
	$(PYTHON) tools/build-rpm

goo: ## the Windows packages (GUEST_SIGN_COMMAND signs our programs)
	$(PYTHON) tools/build-goo

packages: ## everything, in all formats, for every target that builds here; a table of it
	$(PYTHON) tools/package-summary --build

repo-apt: ## a signed apt repository of what was built (GUEST_GPG_KEY or GUEST_GPG_KEY_FILE)
	$(PYTHON) tools/repo-apt

repo-yum: ## signed yum repositories of what was built (GUEST_GPG_KEY or GUEST_GPG_KEY_FILE)
	$(PYTHON) tools/repo-yum

publish: ## a repository to a folder or an object store: GUEST_REPO=dist/apt-repo GUEST_PUBLISH_TO=URL
	$(PYTHON) tools/publish "$(GUEST_REPO)" "$(GUEST_PUBLISH_TO)"

release: ## everything twice, compared, with sums and bills of materials, from a clean tree
	$(PYTHON) tools/make-release

repo-goo: goo ## a repository of the Windows packages (GUEST_REPO_KEY signs its index)
	$(PYTHON) tools/repo-goo --replace $(GOOS)

check-packages: deb goo ## what is in the packages, lintian and rpmlint
	for target in $(RPM_TARGETS); do $(PYTHON) tools/build-rpm --target $$target; done
	$(PYTHON) tools/check-artifacts dist/*_$$(cat VERSION)-1_*.deb
	$(PYTHON) tools/check-artifacts $(GOOS)
	tools/check-lintian
	tools/check-rpmlint $(RPM_TARGETS)

lint: $(VENV)/made deb ## format, types, floors, shell, manual pages, packages
	tools/lint $(VENV)

test: setup lint deb ## everything: lint, then every tier of tests that this machine can run
	$(TEST) -n 2 --dist loadfile $(TIERS) $(PYTEST_ARGS)

bench: $(VENV)/made deb ## figures beside those of the reference packages
	benchmarks/run

demo: ## the agent on a machine of its own, with a metadata server to play with
	tools/demo

clean: ## remove build/, dist/ and what the tools left behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
