"""The commands on an accelerator, for ``gpu.py check``."""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gpu_task import Rows, Task


def command_line(task: Task) -> Rows:
    """Train, resume in a new process, evaluate, predict, export and serve by the command line."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "data")
        whole, again = root / "whole", root / "again"
        flags = ["--data_dir", root / "data", "--net", "densenet100", "--image_size", 32]
        flags += ["--eval_resize", 36, "--max_epoch", 2, "--per_batch_size", 8, "--lr", 0.02]
        flags += ["--ckpt_interval", 4, "--workers", 1, "--device", task.device.type]
        yield command("train", *flags, "--output_dir", whole)
        middle = sorted(whole.glob("0-1_*.ckpt"))[0]
        yield command("train", *flags, "--output_dir", again, "--resume", middle)
        ends = [(run / "last.safetensors").read_bytes() for run in (whole, again)]
        yield {"command": "resume is bit-equal", "held": ends[0] == ends[1]}
        weights = ["--pretrained", whole / "last.safetensors", "--device", task.device.type]
        yield from fine_tuned([*flags, *weights[:2]], root)
        if task.is_cuda:
            graphed = ["--cuda_graphs", 1, "--output_dir", root / "graphs"]
            yield command("train", *flags, *graphed)
            equal = (root / "graphs" / "last.safetensors").read_bytes() == ends[0]
            yield {"command": "with CUDA graphs it is bit-equal", "held": equal}
        val = root / "data" / "val"
        yield command("eval", "--data_dir", val, *weights, "--output_dir", root / "eval")
        yield command("predict", val, *weights, "--format", "csv")
        exported = ["--format", "torch", "--output", root / "network.pt2", "--pictures", 20]
        yield command("export", *weights[:2], "--data_dir", root / "data", *exported)
        yield served(weights[1], val / "dark" / "0.png", task)


def fine_tuned(flags: list[Any], root: Path) -> Rows:
    """The recipe `finetune` with a freeze, averaged weights and mixed images, and its resume."""
    whole, again = root / "tuned", root / "tuned again"
    flags = [*flags, "--recipe", "finetune", "--freeze_epochs", 1, "--ema_decay", 0.9]
    flags += ["--augment", "light", "--mixup", 0.2, "--sampler", "balanced"]
    yield command("train", *flags, "--output_dir", whole)
    middle = whole / "0-2_2.ckpt"
    yield command("train", *flags, "--output_dir", again, "--resume", middle)
    for name in ("last.safetensors", "last_ema.safetensors"):
        ends = [(run / name).read_bytes() for run in (whole, again)]
        yield {"command": f"resume of fine-tuning: {name}", "held": ends[0] == ends[1]}


def command(*arguments: Any) -> dict[str, Any]:
    """Run our command line; whether it ended with status 0."""
    line = [sys.executable, "-m", "densenet121", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    row = {"command": arguments[0], "status": done.returncode, "held": done.returncode == 0}
    return row | {"stderr": done.stderr.strip()[-500:]}


def served(weights: Any, image: Path, task: Task) -> dict[str, Any]:
    """Start our server, classify an image, stop it by SIGTERM."""
    line = [sys.executable, "-m", "densenet121", "serve", str(weights), "--port", "0"]
    line += ["--device", task.device.type]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            while not (address := re.search(r"http://[0-9.:]+/", said)):
                added = process.stderr.readline()
                if "serve needs" in added:
                    return {"command": "serve", "skipped": added.strip()}
                assert added, f"the server did not start: {said[-500:]}"
                said += added
            request = urllib.request.Request(address[0] + "predict", image.read_bytes())
            with urllib.request.urlopen(request, timeout=120) as answer:
                found = json.loads(answer.read())
        finally:
            process.terminate()
            status = process.wait(60)
    row = {"command": "serve", "status": status, "answer": str(found)[:200]}
    return row | {"held": status == 0 and "dark" in str(found)}


def write_images(root: Path) -> None:
    """``train/`` with 40 and ``val/`` with 10 images of each of two classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 10)):
        for label, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(80 * label, 120 + 80 * label, (48, 48, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / name / f"{index}.png"), pixels)
