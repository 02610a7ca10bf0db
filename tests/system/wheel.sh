#!/bin/sh
# Install a wheel where nothing of the source is, and use it: wheel.sh PYTHON WHEEL yes|no (has kernels).
set -eu
python=$1 wheel=$2 has_kernels=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$python" -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall "$wheel"
"$python" -m pip check
"$python" - "$has_kernels" << 'CHECK'
import sys
import zlib
from pathlib import Path

import densenet121
from densenet121.native.images import image_kernel
from densenet121.native.network import kernels
from PIL import Image

assert "site-packages" in densenet121.__file__, densenet121.__file__
loaded = [not isinstance(library, str) for library in (kernels(), image_kernel())]
assert loaded == [sys.argv[1] == "yes"] * 2, (kernels(), image_kernel())
for number in range(24):
    split = "val" if number % 3 == 2 else "train"
    path = Path("images") / split / "ab"[number % 2] / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (200 * (number % 2), zlib.crc32(b"%d" % number) % 256, 90)
    Image.new("RGB", (20, 18), colour).save(path)
CHECK
run="$python -m densenet121"
$run --version
$run train --data_dir images --net densenet40 --image_size 16 --max_epoch 1 --output_dir run > train.txt
$run eval --data_dir images --pretrained run/last.safetensors --output_dir evaluated > eval.txt
$run predict --pretrained run/last.safetensors images/val > predictions.txt
test -s run/report.html
test "$(wc -l < evaluated/predictions.csv)" = 9
echo "$wheel: trains, evaluates and predicts; kernels: $has_kernels"
