#!/bin/sh
# The kernels for 64-bit ARM, run in an emulator: sh tests/system/arm.sh PYTHON [WHEEL]
# Without a wheel they are cross-compiled and their tests run; a wheel is installed in a folder and used.
# PYTHON has setuptools and pip. What is fetched and built stays in .arm/. Without the cross compiler, the
# emulator or Debian's packages for arm64 it says so and ends with exit status 0.
set -eu
python=$1
cd "$(dirname "$0")/../.."
skip() {
    echo "skipped: $*"
    exit 0
}
command -v aarch64-linux-gnu-g++ > /dev/null || skip "aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu) is not here"
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || skip "qemu-aarch64 (Debian: qemu-user) is not here"
command -v apt-get > /dev/null || skip "apt-get, which fetches Python for arm64, is not here"

# Python and the libraries below it, in a folder: nothing is installed on this machine.
arm=$PWD/.arm
if [ ! -e "$arm/root/.done" ]; then
    rm -rf "$arm/root" "$arm/apt"
    mkdir -p "$arm/root" "$arm/apt/lists/partial" "$arm/apt/packages"
    printf '%s\n' 'APT::Architecture "arm64";' 'APT::Architectures { "arm64"; };' "Dir::State \"$arm/apt\";" \
        'Dir::State::status "/dev/null";' "Dir::Cache \"$arm/apt/cache\";" > "$arm/apt/apt.conf"
    APT_CONFIG=$arm/apt/apt.conf
    export APT_CONFIG
    apt-get -qq update || skip "apt-get update failed for arm64"
    wanted="python3-minimal libpython3-stdlib libstdc++6 libgomp1"
    packages=$(apt-get -qq install --simulate --no-install-recommends $wanted 2> /dev/null | awk '/^Inst/ {print $2}')
    [ -n "$packages" ] || skip "apt-get knows no Python for arm64"
    (cd "$arm/apt/packages" && apt-get -qq download $packages 2> /dev/null) || skip "Python for arm64 could not be fetched"
    for package in "$arm"/apt/packages/*.deb; do dpkg-deb -x "$package" "$arm/root"; done
    unset APT_CONFIG
    rm -r "$arm/apt"
    touch "$arm/root/.done"
fi
interpreter=$(ls "$arm"/root/usr/bin/python3.[0-9]*)

# From torch 2.11 on, the wheels for ARM have CUDA and need all of its libraries.
platforms="--platform manylinux2014_aarch64"
for minor in $(seq 17 36); do platforms="$platforms --platform manylinux_2_${minor}_aarch64"; done
fetch() {
    "$python" -m pip --disable-pip-version-check install --quiet --no-compile --no-deps --only-binary :all: \
        --implementation cp --python-version "${interpreter##*python}" $platforms --target "$@"
}
if [ ! -e "$arm/site/.done" ]; then
    rm -rf "$arm/site"
    fetch "$arm/site" torch==2.10.0 || skip "torch for ARM could not be fetched"
    fetch "$arm/site" --constraint constraints.txt numpy opencv-python-headless simplejpeg pillow safetensors PyYAML \
        typing_extensions filelock sympy mpmath networkx Jinja2 MarkupSafe fsspec \
        pytest iniconfig packaging pluggy Pygments hypothesis sortedcontainers
    touch "$arm/site/.done"
fi

# run PROCESSOR ARGUMENTS: Python on a processor of that name.
run() {
    processor=$1
    shift
    OMP_NUM_THREADS=1 PYTHONPATH="$arm/lib:$arm/site" "$emulator" -cpu "$processor" -L "$arm/root" "$interpreter" "$@"
}
rm -rf "$arm/lib"
if [ $# -gt 1 ]; then
    fetch "$arm/lib" "$2"
else
    sh tests/system/arm_compiler.sh "$python" setup.py --quiet build --build-base "$arm/build" --build-lib "$arm/lib"
fi
# Each with what it has: an instruction that a processor lacks ends the process.
for pair in neoverse-n1:neon_dotprod max:neon_bf16; do
    found=$(run "${pair%:*}" -c "from densenet121.native.network import kernels; print(kernels().instruction_set)")
    echo "${pair%:*}: $found"
    [ "$found" = "${pair#*:}" ]
done

if [ $# -gt 1 ]; then
    run max - << 'CHECK'
import densenet121
import torch
from densenet121.native.images import ImageKernel, image_kernel

assert "/.arm/lib/" in densenet121.__file__, densenet121.__file__
assert isinstance(image_kernel(), ImageKernel), image_kernel()
net = densenet121.DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=3)
images = torch.randn(4, 3, 32, 32)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
losses = []
for _ in range(8):
    loss = torch.nn.functional.cross_entropy(net(images), torch.arange(4) % 3)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0] / 2, losses
CHECK
    echo "$2: its kernels load and train"
    exit 0
fi

# OpenCV and Pillow round otherwise on ARM, so the image kernel is held to its own bits on this machine.
rm -rf "$arm/bits"
mkdir -p "$arm/bits"
DENSENET121_KERNELS=portable "$python" tests/system/image_bits.py "$arm/bits/jpegs" > "$arm/bits/here"
run max tests/system/image_bits.py "$arm/bits/jpegs" > "$arm/bits/arm"
cmp "$arm/bits/here" "$arm/bits/arm"
echo "image kernel: the bits of this machine ($(wc -l < "$arm/bits/arm") digests)"

# This machine could not start a process of the emulated one; whole networks take too long.
check() {
    processor=$1
    shift
    run "$processor" -m pytest -q -p no:cacheprovider -m "not slow" -k "not busy_processes and not densenet" "$@"
}
blocks=tests/network/test_fused_block.py int8=tests/network/test_int8.py
check max $int8 $blocks tests/network/test_fused_inference.py tests/network/test_fused_network.py \
    tests/network/test_fused_classifier.py tests/network/test_inference_bf16.py tests/network/test_training_bf16.py
check neoverse-n1 $int8 $blocks
# torch's wheel does not run on a processor that has no more than this build needs.
DENSENET121_KERNELS=neon check max $blocks
