"""Run an exported ``.onnx`` file as a network, for eval and predict."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densenet121.checkpoint.archives import refuse_no_file
from densenet121.checkpoint.native import METADATA_KEY, ModelInfo, check_names, check_one_output
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.inference.classifier import Choices, Classifier, check_network, check_views
from densenet121.tasks import task_named
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import refuse_stray

# Where ONNX Runtime looks for tensors that another file has; else in the working directory.
_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxModel(nn.Module):
    """ONNX Runtime on the CPU with the interface of a network: images ``(N, C, H, W)`` to logits.

    Attributes:
        content: what `export` wrote into the file's metadata.
        num_classes: number of logits.
        arithmetic: float32 or int8.
        takes_uint8: whether it includes normalisation; its images are grey levels 0 to 255.
    """

    def __init__(self, path: Path) -> None:
        """Load a file that `export` wrote.

        Raises:
            InputError: ONNX Runtime is not installed, or the file cannot be read or was not
                written by `export`.
        """
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                f"{path}: needs ONNX Runtime; pip install 'densenet121[export]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.add_session_config_entry(_FOLDER, os.fsencode(path.parent.absolute()))
        if path.exists() and not path.is_dir():
            refuse_no_file(path)
        try:
            data = path.read_bytes()
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            properties = self._session.get_modelmeta().custom_metadata_map
            (self._input,) = self._session.get_inputs()
            (logits,) = self._session.get_outputs()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except Exception as error:  # ONNX Runtime has many exception classes
            refuse_stray(path)
            reason = one_line(error)
            if "External data path" in reason or "External initializer" in reason:
                raise InputError(
                    f"{path}: its tensors are in a file of their own (external data), which is "
                    "missing beside it or damaged; copy it there under the name that it had"
                ) from None
            raise InputError(f"{path}: ONNX Runtime cannot load it ({reason[:200]})") from None
        self._origin = path.absolute(), hashlib.sha256(data).hexdigest()
        found = properties.get(METADATA_KEY)
        if found is None:
            raise InputError(
                f"{path}: not written by densenet121 export (it has no such metadata); pass the "
                "weights that it was exported from, or export them"
            )
        try:
            self.content: dict[str, Any] = dict(parse_json(found))
            self.num_classes = int(logits.shape[1])
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(f"{path}: its metadata is damaged ({error!r})") from None
        # Older files do not say it, but the names of their operators do.
        is_int8 = self.content.get("int8", b"QuantizeLinear" in data)
        self.arithmetic = "int8" if is_int8 else "float32"
        self._kind = self._input.type.removeprefix("tensor(").removesuffix(")")
        self.takes_uint8 = self._kind == "uint8"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in this process or another, loads the file again: ONNX Runtime copies nothing."""
        return _load_again, self._origin

    def recorded(self, path: Path) -> tuple[ModelInfo, Any]:
        """What the export wrote of the network, and its calibration or None.

        Raises:
            InputError: it is damaged, or does not fit the network.
        """
        try:
            info = ModelInfo.from_json(self.content["model"])
            stored = self.content.get("calibration")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its metadata is damaged ({error!r})") from None
        check_names(info, self.num_classes, path)
        check_one_output(info.task, self.num_classes, path)
        self._check_input(info.preprocessing, path)
        return info, stored

    @property
    def input_text(self) -> str:
        """Type and shape of the input, for people."""
        return f"{self._kind} of {' x '.join(map(str, self._input.shape))}"

    def _check_input(self, preprocessing: Preprocessing, path: Path) -> None:
        """Refuse a file whose input another program has changed.

        Raises:
            InputError: it is not of any number of such images, in float32 or uint8.
        """
        size = [*preprocessing.image_size]
        size.insert(2 if self.takes_uint8 else 0, preprocessing.channels)
        fixed = [side if isinstance(side, int) else None for side in self._input.shape]
        fits = len(fixed) == 4 and all(
            side in (None, own) for side, own in zip(fixed, [None, *size], strict=True)
        )
        if not fits or self._kind not in ("float", "uint8"):
            raise InputError(
                f"{path}: its input was changed after its export: {self.input_text}, not float or "
                f"uint8 of any number x {' x '.join(map(str, size))}; export the weights again"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` float32."""
        inside = self.takes_uint8
        given = images.permute(0, 2, 3, 1).to(torch.uint8) if inside else images.float()
        array = np.ascontiguousarray(given.cpu().numpy())
        (logits,) = self._session.run(None, {self._input.name: array})
        return torch.from_numpy(logits)


def _load_again(path: Path, digest: str) -> OnnxModel:
    """The network of a file whose content is as it was.

    Raises:
        InputError: the file cannot be read, or has changed.
    """
    model = OnnxModel(path)
    if model._origin[1] != digest:
        raise InputError(f"{path}: has changed since it was loaded")
    return model


def load_onnx(path: Path, choices: Choices) -> Classifier:
    """The classifier in an exported file; its image size is fixed.

    Raises:
        InputError: the file cannot be used, or another image size is requested; a UsageError if a
            choice contradicts it.
    """
    model = OnnxModel(path)
    info, stored = model.recorded(path)
    size = info.preprocessing.image_size
    if choices.image_size not in (None, size):
        raise InputError(f"{path}: was exported for images of {size}; `image_size` cannot change")
    check_network(path, info, choices)
    check_views(path, info.preprocessing, choices, calibrated=bool(stored))
    preprocessing = info.preprocessing.changed(
        eval_resize=choices.eval_resize,
        interpolation=choices.interpolation,
        tta=choices.tta,
        depth=choices.depth,
        window=choices.window,
    )
    if model.takes_uint8:
        fill = preprocessing.transform.fill  # that of the mean, which is inside the network
        channels = preprocessing.channels
        preprocessing = replace(
            preprocessing, mean=(0.0,) * channels, std=(1.0,) * channels, fill=fill
        )
    _ = preprocessing.transform  # raises if the crop does not fit
    task = task_named(info.task, path, choices.task)
    return Classifier(
        model=model,
        class_names=info.class_names or tuple(map(str, range(model.num_classes))),
        preprocessing=preprocessing,
        task=task,
        net=info.net,
        variant=info.variant,
        calibration=task.read_calibration(stored) if stored else None,
        arithmetic=model.arithmetic,
    )
