"""What a model card says about the weights themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.card.markdown import code, escape, section, table
from densenet121.checkpoint.native import ModelInfo
from densenet121.datasets.grey import NOTE
from densenet121.utils.errors import some

_CLASSES_SHOWN = 100
_TO_FILL = "*To fill in.*"


def metadata(
    model_index: Sequence[Mapping[str, Any]] = (), *, for_timm: bool = True
) -> dict[str, Any]:
    """The hub's metadata block; its licence and data sets are for the author to add."""
    programs = ["timm", "transformers"] if for_timm else []
    found: dict[str, Any] = {
        "library_name": "timm" if for_timm else "densenet121",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *programs, "densenet121"],
    }
    return found | ({"model-index": list(model_index)} if model_index else {})


def summary(info: ModelInfo, origin: str = "") -> str:
    """The first lines of the card."""
    several = info.task == "multilabel"
    outputs = "labels" if several else "classes"
    what = f"{len(info.class_names)} {outputs}" if info.class_names else f"unnamed {outputs}"
    return " ".join(
        [
            f"A {_title(info.net)} that classifies images into {what}"
            f"{', of which an image may have several' if several else ''}.",
            *([origin] if origin else []),
        ]
    )


def _title(net: str) -> str:
    return f"DenseNet-{net.removeprefix('densenet')}"


def use(info: ModelInfo) -> str:
    """How each program that can read the folder takes it up."""
    probabilities = "sigmoid()" if info.task == "multilabel" else "softmax(dim=1)"
    return section(
        "Use",
        "With [transformers](https://huggingface.co/docs/transformers) (`DIR` is this folder, or "
        "its name on the hub):",
        "```python\n"
        "from transformers import pipeline\n\n"
        'classify = pipeline("image-classification", model="DIR")\n'
        'classify("image.jpg")\n```',
        "With [timm](https://huggingface.co/docs/timm):",
        "```python\n"
        "import timm\n"
        "from PIL import Image\n\n"
        'model = timm.create_model("local-dir:DIR", pretrained=True).eval()\n'
        "config = timm.data.resolve_model_data_config(model)\n"
        "transform = timm.data.create_transform(**config)\n"
        'image = transform(Image.open("image.jpg").convert("RGB"))\n'
        f"model(image[None]).{probabilities}\n```",
        "With densenet121:",
        "```\ndensenet121 predict --pretrained DIR image.jpg\n```",
    )


def preprocessing(info: ModelInfo, differences: Sequence[str] = ()) -> str:
    """How an image becomes the input of the network, and what other programs do differently."""
    p = info.preprocessing
    of = "R, G, B" if p.channels == 3 else "the one channel"
    rows = [
        ["resized to", code(p.eval_resize)],
        ["central crop, height x width", f"{p.image_size[0]} x {p.image_size[1]}"],
        ["interpolation", code(p.interpolation)],
        *([] if p.channels == 3 else [["channels", escape(NOTE)]]),
        [f"mean of {of} (0 to 255)", ", ".join(f"{level:.6g}" for level in p.mean)],
        ["standard deviation", ", ".join(f"{level:.6g}" for level in p.std)],
        ["samples", p.reading_note],
        ["views averaged", p.tta],
    ]
    notes = "\n".join(f"- {escape(note)}." for note in differences)
    return section(
        "Preprocessing",
        table(["what", "value"], rows),
        f"What differs in other programs:\n\n{notes}" if notes else "",
    )


def classes(info: ModelInfo) -> str:
    """The names of the outputs, in their order."""
    if not info.class_names:
        return ""
    title = "Labels" if info.task == "multilabel" else "Classes"
    return section(title, escape(some(list(info.class_names), _CLASSES_SHOWN)))


def intended_use() -> str:
    """The fields that only the author can fill."""
    fields = (
        "**Intended use:**",
        "**Out of scope:**",
        "**People and data concerned, consent, licence of the images:**",
        "**Known limits and failures:** this card measures one set of images only;",
        "**Contact:**",
    )
    return section("Intended use and limits", "\n".join(f"- {f} {_TO_FILL}" for f in fields))
