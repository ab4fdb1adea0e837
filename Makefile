# SPDX-License-Identifier: GPL-2.0-only
# The front door. Everything that it does is in tools/xtask; targets that are not
# named here are those of the kernel's own Makefile.
MAKEFLAGS += --no-builtin-rules --no-builtin-variables --no-print-directory
.NOTPARALLEL:
.SUFFIXES:

OWN := LLVM=% KDIR=% KTARBALL=% PROFILE=% FILE=% COPIES=%

define HELP
Linux with SQE groups for io_uring.

  make LLVM=1                  fetch, patch, configure and build the kernel
  make LLVM=1 demo             the same, then copy a file in it with groups
  make LLVM=1 shell            the same, then a shell in it
  make LLVM=1 qemu-test        the same, then all tests in it
  make LLVM=1 TARGET...        a target of the kernel's own, such as menuconfig, clean
  make doctor                  what this machine lacks

  LLVM=1 | LLVM=-19 | LLVM=/path/
                               as in the kernel's Documentation/kbuild/llvm.rst
  KDIR=DIR                     use this kernel tree, and add the series to it
  KTARBALL=FILE                take the source from this archive
  PROFILE=NAME                 a fragment in ci/config (default: default)
  FILE=FILE COPIES=N           what the demo copies, and how often
  V=1, W=1, ...                go to the kernel's make

The cache is $$SQE_GROUP_CACHE, or sqe-group in $$XDG_CACHE_HOME or ~/.cache.
`cargo xtask --help` has the rest.
endef

# So that a shell that has not read cargo's environment finds it.
export PATH := $(PATH):$(HOME)/.cargo/bin

quote = '$(subst ','\'',$(1))'
flag = $(if $($(1)),$(2) $(call quote,$($(1))))
jobs = $(patsubst -j%,--jobs %,$(filter-out -j,$(filter -j%,$(MAKEFLAGS))))
options = --llvm=$(call quote,$(LLVM)) $(call flag,KDIR,--kdir) $(call flag,KTARBALL,--tarball) $(jobs)
profile = $(call flag,PROFILE,--profile)
variables = $(foreach variable,$(filter-out $(OWN),$(MAKEOVERRIDES)),$(call quote,$(variable)))

ifeq ($(shell command -v cargo),)
$(error cargo is missing: install Rust as https://rustup.rs says, and run the same command again)
endif
ifeq ($(shell command -v cc),)
$(error cc is missing, which cargo links with: `apt-get install gcc libc6-dev` or the like)
endif
ifeq ("$(origin O)", "command line")
$(error O= cannot be chosen here: SQE_GROUP_CACHE=dir says where everything that is built goes)
endif
ifneq ($(filter-out help doctor,$(or $(MAKECMDGOALS),all)),)
ifeq ($(LLVM),)
$(error Rust in the kernel is built with LLVM: `make LLVM=1 $(MAKECMDGOALS)`, or `make help`)
endif
endif

all:
	@cargo xtask build $(options) $(profile) $(variables)

help:
	$(info $(HELP))
	@:

doctor:
	@cargo xtask doctor $(if $(LLVM),--llvm=$(call quote,$(LLVM)))

demo:
	@cargo xtask demo $(options) $(profile) $(call flag,FILE,--file) $(call flag,COPIES,--copies)

shell qemu-test:
	@cargo xtask $@ $(options) $(profile)

# The rule below would try to make it.
Makefile: ;

%: FORCE
	@cargo xtask build $(options) $(profile) $@ $(variables)

FORCE:

.PHONY: all help doctor demo shell qemu-test FORCE
