"""The HTTP routes: /predict, the page at /, health, metrics, the API documentation, and /v2."""

import asyncio
import base64
import re
import sys
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from densenet121.inference.maps import NO_MAPS
from densenet121.network import DenseNet
from densenet121.serve.access import TokenNeeded
from densenet121.serve.answers import Json
from densenet121.serve.batches import Reply
from densenet121.serve.bodies import Refusal, drain
from densenet121.serve.metrics import Metrics
from densenet121.serve.open_inference import add_open_inference
from densenet121.serve.service import Service
from densenet121.tasks import AnswerOptions
from densenet121.utils.errors import one_line
from densenet121.version import __version__

_PAGE = Path(__file__).with_name("page.html")
# The page can load nothing from other hosts.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_KEYS = ("top_k", "coverage", "cam")  # of the query of /predict
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "pictures": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

# What every operation may answer. Without it FastAPI documents an answer that is never given.
_REFUSED = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"error": {"type": "string"}},
            "required": ["error"],
        }
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused; `error` has the reason, in one line", "content": _REFUSED},
    503: {"description": "Busy or not ready; come again", "content": {"application/json": {}}},
}


def make_app(service: Service, token: bytes | None = None) -> FastAPI:
    """Make the application for a service; every request must bring the ``token``, if any."""
    app = FastAPIOffline(
        title="densenet121",
        version=__version__,
        redoc_url=None,
        separate_input_output_schemas=False,
        responses=_REFUSALS,
    )
    config, classifier = service.config, service.predictor.classifier
    calibrated, maps = classifier.calibration is not None, isinstance(classifier.model, DenseNet)

    @app.post("/predict", openapi_extra=_BODY, summary="Classify one or several images")
    async def predict(
        request: Request,
        top_k: Annotated[
            int | None,
            Query(ge=1, description="number of classes to return; not for several labels"),
        ] = config.top_k,
        coverage: Annotated[
            float | None,
            Query(gt=0, lt=1, description="return a prediction set; needs calibrated weights"),
        ] = None,
        cam: Annotated[
            bool, Query(description="return a class-activation map, a PNG as data: URL")
        ] = False,
    ) -> Response:
        with service.metrics.request_seconds.time():
            await _check_keys(request)
            options = AnswerOptions(top_k, coverage)
            try:
                service.check_options(options)
                if cam and not maps:
                    raise Refusal(400, NO_MAPS)
            except Refusal:
                await drain(request)
                raise
            replies = await service.predict(request, options, cam)
        return Json({"predictions": [_as_json(name, reply) for name, reply in replies]})

    _add_information(app, service, calibrated=calibrated, maps=maps)
    add_open_inference(app, service)
    _add_refusals(app)
    if token is not None:
        app.add_middleware(TokenNeeded, token=token)
    # The outermost middleware, so that all answers are counted.
    app.add_middleware(_Counted, metrics=service.metrics)
    return app


async def _check_keys(request: Request) -> None:
    """Refuse a query with keys that are unknown or given twice: no wish is ignored.

    Raises:
        Refusal: 400.
    """
    keys = [key for key, _ in request.query_params.multi_items()]
    unknown = [key for key in keys if key not in _KEYS]
    twice = [key for key in _KEYS if keys.count(key) > 1]
    if unknown or twice:
        await drain(request)
        if unknown:
            allowed = ", ".join(_KEYS)
            raise Refusal(400, f"{unknown[0]}: unknown in the query; it may have {allowed}")
        raise Refusal(400, f"{twice[0]}: is given more than once")


def _add_information(app: FastAPI, service: Service, *, calibrated: bool, maps: bool) -> None:
    """Add the page, health, model information and metrics."""
    config, classifier = service.config, service.predictor.classifier

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(
            _PAGE.read_text(encoding="utf-8"), headers={"content-security-policy": _PAGE_POLICY}
        )

    @app.get("/healthz", summary="Whether the process is running")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Whether the server accepts requests")
    async def readyz() -> Response:
        content = {"status": "ready" if service.ready else "not ready"}
        return Json(content, status_code=200 if service.ready else 503)

    @app.get("/model", summary="Network, classes and limits")
    async def model() -> dict[str, Any]:
        return {
            "net": classifier.net,
            "variant": classifier.variant,
            "class_word": classifier.task.class_word,
            "num_classes": len(classifier.class_names),
            "image_size": service.predictor.size,
            "precision": service.predictor.runtime.precision_name,
            "int8": classifier.is_int8,
            "calibrated": calibrated,
            "maps": maps,
            "max_bytes": config.max_bytes,
            "max_pixels": config.max_pixels,
            "max_pictures": config.max_pictures,
        }

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"description": "All metrics", "content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _as_json(name: str, reply: Reply) -> dict[str, Any]:
    """The same JSON as from predict, with the client's name of the image."""
    content: dict[str, Any] = {"name": name, **reply.answer.to_json()}
    if reply.cam is not None:
        content["cam"] = "data:image/png;base64," + base64.b64encode(reply.cam).decode()
    return content


def _add_refusals(app: FastAPI) -> None:
    """Return every error as ``{"error": reason}``."""

    def refuse(status: int, reason: str, **headers: str) -> Json:
        # One line, whatever a client has put into what it asks for.
        return Json({"error": one_line(reason)}, status_code=status, headers=headers)

    @app.exception_handler(Refusal)
    async def refusal(request: Request, error: Refusal) -> Response:
        headers = {"connection": "close"} if error.unread else {}
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        return refuse(error.status, error.reason, **headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_query(request: Request, error: RequestValidationError) -> Response:
        await drain(request)
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return refuse(400, "; ".join(faults))

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        headers, reason = dict(error.headers or {}), str(error.detail)
        path, docs = request.scope["path"][:200], f"{request.scope.get('root_path', '')}/docs"
        if error.status_code == 404:
            reason = f"there is nothing at {path}; {docs} has what there is"
        allowed = headers.pop("Allow", None)
        if allowed is not None:
            headers["allow"] = "GET, HEAD" if allowed == "GET" else allowed
            reason = f"{request.method} is not allowed for {path}; {headers['allow']} is"
        return refuse(error.status_code, reason, **headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return refuse(400, "the client closed the connection before its request was complete")

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        reason = f"the server failed: {type(error).__name__}: {one_line(error)}"
        # uvicorn's log is silent, and whoever operates the server does not see the answer.
        print(f"densenet121: a request failed (500): {reason}", file=sys.stderr)  # noqa: T201
        return refuse(500, reason, **{"x-content-type-options": "nosniff"})


def _here(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A header; a redirection without scheme and host, which those before a proxy may not be."""
    if name == b"location":
        value = re.sub(rb"^https?://[^/]*/+", b"/", value)
    return name, value


class _Counted:
    """Counts the answers by status, and lets HEAD have those of GET."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.count(message["status"])
                headers = [_here(*header) for header in message["headers"]]
                message["headers"] = [*headers, (b"x-content-type-options", b"nosniff")]
                started.append(True)
            await send(message)

        if scope.get("method") == "HEAD":  # as GET; uvicorn sends no body of it
            scope = {**scope, "method": "GET"}
        started: list[bool] = []
        try:
            await self._app(scope, receive, counted)
        except asyncio.CancelledError:  # the time for what was accepted is over
            if not started:
                headers = {"connection": "close", "retry-after": "1"}
                await Json({"error": "the server is stopping"}, 503, headers)(
                    scope, receive, counted
                )
            raise
        except Exception:
            if not started:  # the 500 is sent by Starlette, outside of every middleware
                self._metrics.count(500)
            raise
