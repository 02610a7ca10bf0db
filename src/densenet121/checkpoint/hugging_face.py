"""Write a folder that timm, transformers and the Hugging Face hub read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from densenet121.checkpoint.channels import with_channels
from densenet121.checkpoint.convert import (
    Converted,
    check_network,
    check_same,
    described,
    of_offsets,
    replaced,
)
from densenet121.checkpoint.foreign.timm_config import CONFIG, WEIGHTS, make_config
from densenet121.checkpoint.known import NOTHING_KNOWN, Known
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.network import Variant
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import is_taken, new_folder, sync_folder, write_atomic, write_json

README = "README.md"
# What the page needs: the weights, the program they come from, and what others do differently.
MakePage = Callable[[ModelInfo, str, Sequence[str]], str]


def write_hugging_face(
    source: Path,
    target: Path,
    make_page: MakePage,
    *,
    net: str | None = None,
    variant: Variant | None = None,
    known: Known = NOTHING_KNOWN,
) -> Converted:
    """Write model.safetensors, a native file too, config.json and README.md.

    The folder appears under its name when everything in it was written, and the weights were read
    back bit for bit.

    Args:
        source: any weights that ``read_weights`` reads.
        target: the folder, which must be new or empty.
        make_page: the text of README.md.
        net: the network, for weights that do not record it.
        variant: the variant, for weights that do not record it.
        known: as in ``convert``.

    Raises:
        UsageError: ``target`` is not new.
        InputError: the weights cannot be read, or timm has no such network.
        OSError: the folder cannot be written.
    """
    _check_target(target)
    loaded = load_pretrained(source, net=net or "densenet121", variant=variant)
    info = described(loaded, net or "densenet121")
    check_network(info, "timm", source)
    info, loaded, changed = replaced(loaded, info, known, source)
    state_dict = loaded.model.state_dict()
    if loaded.model.in_channels != 3:  # timm and transformers give it RGB
        state_dict, preprocessing, note = with_channels(state_dict, info.preprocessing, 3)
        info, changed = replace(info, preprocessing=preprocessing), [*changed, note]
    try:
        config, notes = make_config(info, len(state_dict["classifier.bias"]))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    notes += changed + of_offsets(loaded.calibration)
    if loaded.calibration is not None:
        notes.append(
            "timm and transformers give probabilities without the calibration, which densenet121 "
            f"applies; it is in {WEIGHTS}"
        )
    if not info.class_names:
        notes.append("the weights have no class names, so other programs show numbers or guess")
    with new_folder(target) as trial:
        file = trial / WEIGHTS
        beside = loaded.origin, loaded.calibration, loaded.data
        save_weights(file, state_dict, info, *beside, with_format=True)
        write_json(trial / CONFIG, config)
        write_atomic(trial / README, make_page(info, loaded.family, notes).encode())
        check_same(file, state_dict, info)
    sync_folder(target.parent)
    return Converted(info, loaded.family, len(state_dict), notes=(*loaded.notes, *notes))


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; name a folder")
    if is_taken(target):
        raise UsageError(f"{target}: has files already; name a new folder or an empty one")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: there is no such folder")
