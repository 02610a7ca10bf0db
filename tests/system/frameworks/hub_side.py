"""timm's and transformers' half of tests/system/test_frameworks_hub.py.

load FOLDER           logits of images_*.npy by each folder in it; what timm and transformers read
images FOLDER FILES   what their transforms make of images, and the answers of the pipeline
make FOLDER           a folder that timm writes, one that transformers makes of it, and logits
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

import numpy as np
import timm
import torch
import transformers
from PIL import Image

NAMES = [f"kind {number}" for number in range(10)]


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        shape = tuple(tensor.shape)
        value = rng.normal(size=shape) * 0.1
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))


def of_timm(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def of_transformers(folder):
    return transformers.pipeline("image-classification", model=str(folder))


def write_logits(folder, place, **models):
    for file in sorted(place.glob("images_*.npy")):
        images = torch.from_numpy(np.load(file))
        for name, model in models.items():
            logits = model(images)
            logits = getattr(logits, "logits", logits)
            np.save(folder / file.name.replace("images", f"{name}_logits"), logits.numpy())


def folders_in(place):
    return sorted(file.parent for file in place.glob("*/config.json"))


def load(place):
    from huggingface_hub import ModelCard

    for folder in folders_in(place):
        pipeline = of_transformers(folder)
        write_logits(folder, place, timm=of_timm(folder), transformers=pipeline.model)
        config = pipeline.model.config
        card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
        told = {
            "versions": {"timm": timm.__version__, "transformers": transformers.__version__},
            "problem_type": config.problem_type,
            "names": [config.id2label[index] for index in range(config.num_labels)],
            "card": card.data.to_dict(),
            "metrics": [
                [one.metric_type, one.metric_value] for one in card.data.eval_results or []
            ],
        }
        (folder / "told.json").write_text(json.dumps(told, default=str))


def images(place, *files):
    for folder in folders_in(place):
        model, pipeline = of_timm(folder), of_transformers(folder)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        answers = []
        for number, file in enumerate(files):
            image = Image.open(file).convert("RGB")
            made = transform(image)
            theirs = pipeline.image_processor(images=image, return_tensors="pt")
            assert torch.equal(made, theirs["pixel_values"][0])
            np.save(folder / f"transformed_{number}.npy", made.numpy())
            answers.append(pipeline(file, top_k=len(NAMES)))
        (folder / "answers.json").write_text(json.dumps(answers))


def make(place):
    model = timm.create_model("densenet121.ra_in1k", num_classes=10).eval()
    randomise(model, 1)
    folder = place / "timm"
    timm.models.save_for_hf(
        model, folder, model_config={"label_names": NAMES}, safe_serialization=True
    )
    write_logits(folder, place, timm=model)
    # timm 1.0.31 writes this, and transformers 5.24 then has it twice.
    config = json.loads((folder / "config.json").read_text())
    config.get("model_args", {}).pop("num_classes", None)
    (folder / "config.json").write_text(json.dumps(config))
    pipeline = of_transformers(folder)
    pipeline.model.save_pretrained(place / "transformers")
    write_logits(place / "transformers", place, timm=pipeline.model)


torch.set_num_threads(1)
torch.set_grad_enabled(False)
globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
