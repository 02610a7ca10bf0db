"""The routes of the Open Inference Protocol (KServe v2), beside the server's own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Request
from fastapi.responses import Response

from densenet121.serve.answers import Json, json_text
from densenet121.serve.batches import Reply
from densenet121.serve.bodies import NamedImage, Refusal, drain
from densenet121.serve.service import Service
from densenet121.serve.tensors import (
    IMAGE,
    LENGTH,
    PIXELS,
    Allowed,
    Floats,
    InferRequest,
    parse,
    write,
)
from densenet121.tasks import AnswerOptions
from densenet121.version import __version__

_TITLE, _MODEL, _VERSION = "Open Inference Protocol", "/v2/models/{model}", "1"
_LOGITS, _PROBABILITIES, _ANSWER = "logits", "probabilities", "answer"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {"type": "array", "items": {"type": "object"}},
                        "outputs": {"type": "array", "items": {"type": "object"}},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def add_open_inference(app: FastAPI, service: Service) -> None:
    """Add the routes under /v2."""
    name = service.config.model_name or service.predictor.classifier.net
    allowed = _allowed(service)
    known = Path(json_schema_extra={"enum": [name]})  # the document names the only one

    @app.get("/v2", summary=f"{_TITLE}: the server")
    async def server() -> dict[str, Any]:
        extensions = ["binary_tensor_data"]
        return {"name": "densenet121", "version": __version__, "extensions": extensions}

    @app.get("/v2/health/live", summary=f"{_TITLE}: whether the process is running")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary=f"{_TITLE}: whether it accepts requests")
    async def ready() -> Response:
        return Json({"ready": service.ready}, status_code=200 if service.ready else 503)

    for path, shown in ((_MODEL, True), (f"{_MODEL}/versions/{{version}}", False)):

        @app.get(
            path,
            summary=f"{_TITLE}: inputs and outputs",
            include_in_schema=shown,
            response_class=Json,
        )
        async def metadata(model: Annotated[str, known], version: str = _VERSION) -> dict[str, Any]:
            _check(model, version, name)
            return _metadata(service, name, allowed)

        @app.get(f"{path}/ready", summary=f"{_TITLE}: whether it is ready", include_in_schema=shown)
        async def model_ready(model: Annotated[str, known], version: str = _VERSION) -> Response:
            _check(model, version, name)
            content = {"name": name, "ready": service.ready}
            return Json(content, status_code=200 if service.ready else 503)

        @app.post(
            f"{path}/infer",
            openapi_extra=_BODY,
            summary=f"{_TITLE}: classify images or tensors",
            include_in_schema=shown,
        )
        async def infer(
            request: Request, model: Annotated[str, known], version: str = _VERSION
        ) -> Response:
            with service.metrics.request_seconds.time():
                if (model, version) != (name, _VERSION):
                    await drain(request)
                _check(model, version, name)
                return await _infer(request, service, name, allowed)


def _check(model: str, version: str, name: str) -> None:
    if model != name:
        raise Refusal(404, f"there is no model {model}; this server has {name}")
    if version != _VERSION:
        raise Refusal(404, f"there is no version {version} of {name}; there is {_VERSION}")


def _allowed(service: Service) -> Allowed:
    classifier = service.predictor.classifier
    probabilities = classifier.task.probabilities(
        np.zeros((1, service.predictor.num_outputs), np.float32), classifier.calibration
    )
    outputs = (_LOGITS, *(() if probabilities is None else (_PROBABILITIES,)), _ANSWER)
    p, most = classifier.preprocessing, service.config.max_pictures
    if service.predictor.normalised_shape is None:
        return Allowed(outputs, most, None)
    # Half of the range more on each side, since interpolation overshoots; 0 to 255 is refused.
    low = [(-0.5 * 255 - mean) / std for mean, std in zip(p.mean, p.std, strict=True)]
    high = [(1.5 * 255 - mean) / std for mean, std in zip(p.mean, p.std, strict=True)]
    return Allowed(outputs, most, p.image_size, tuple(low), tuple(high))


def _metadata(service: Service, name: str, allowed: Allowed) -> dict[str, Any]:
    outputs = service.predictor.num_outputs
    inputs = [{"name": IMAGE, "datatype": "BYTES", "shape": [-1]}]
    if allowed.size:
        shape = [-1, len(allowed.low), *allowed.size]
        inputs.append({"name": PIXELS, "datatype": "FP32", "shape": shape})
    return {
        "name": name,
        "versions": [_VERSION],
        "platform": "densenet121",
        "inputs": inputs,
        "outputs": [
            {"name": one, "datatype": "BYTES", "shape": [-1]}
            if one == _ANSWER
            else {"name": one, "datatype": "FP32", "shape": [-1, outputs]}
            for one in allowed.outputs
        ],
        "parameters": {"class_names": list(service.predictor.classifier.class_names)},
    }


async def _infer(request: Request, service: Service, name: str, allowed: Allowed) -> Response:
    asked: list[InferRequest] = []

    async def items(body: bytes) -> Sequence[NamedImage | Floats]:
        loop, headers = asyncio.get_running_loop(), dict(request.headers)
        # Beside the loop, which answers others between the tensors.
        found = await loop.run_in_executor(service.pool, parse, body, headers, allowed)
        asked.append(replace(found, items=()))  # the images are not kept beyond their decoding
        return found.items

    def options() -> AnswerOptions:
        found = AnswerOptions(asked[0].top_k or service.config.top_k)
        service.check_options(found)
        return found

    replies = [reply for _, reply in await service.answer(request, items, options)]
    head: dict[str, Any] = {"model_name": name, "model_version": _VERSION}
    if asked[0].id is not None:
        head["id"] = asked[0].id
    body, length = write(head, _outputs(service, replies), asked[0].outputs)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={LENGTH: str(length)})


def _outputs(service: Service, replies: list[Reply]) -> dict[str, Floats | list[str]]:
    classifier = service.predictor.classifier
    logits = np.stack([reply.logits for reply in replies])
    texts = [json_text(reply.answer.to_json()) for reply in replies]
    found: dict[str, Floats | list[str]] = {_LOGITS: logits, _ANSWER: texts}
    probabilities = classifier.task.probabilities(logits, classifier.calibration)
    if probabilities is not None:
        found[_PROBABILITIES] = probabilities.astype(np.float32)
    return found
