"""Run the server: load the weights, listen, and start uvicorn."""

import errno
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Sequence

import cv2
import torch
import uvicorn

from densenet121.config import ServeConfig, absolute, weights_choices
from densenet121.inference.predictor import Predictor
from densenet121.serve.access import check_tls, read_token
from densenet121.serve.app import make_app
from densenet121.serve.connection import Connection
from densenet121.serve.service import Service
from densenet121.tasks import AnswerOptions
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import UsageError
from densenet121.utils.memory import keep_freed_memory
from densenet121.utils.signals import StopRequest


def serve(config: ServeConfig) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then finish the accepted ones.

    While the weights are loaded a signal ends the process, as nothing is accepted then.

    Raises:
        UsageError: the address cannot be used.
        InputError: the weights cannot be used.
    """
    token = read_token(absolute(config.token_file)) if config.token_file else None
    tls: dict[str, str] = {}
    if config.tls_certificate and config.tls_key:
        certificate, key = absolute(config.tls_certificate), absolute(config.tls_key)
        check_tls(certificate, key)
        tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    listener = _listen(config.host, config.port)
    with listener:
        predictor = _predictor(config)
        cv2.setNumThreads(1)  # several threads decode in parallel already
        keep_freed_memory()
        workers = config.workers or max(1, default_workers() // 2)
        streams = config.streams or (
            min(2, torch.get_num_threads()) if predictor.device.type == "cpu" else 1
        )
        service = Service(predictor, config, workers=workers, streams=streams)

        class Bounded(Connection):
            most_bytes = max(4 * config.max_bytes, 2**26)
            head_seconds = min(10.0, config.body_seconds)
            counted = staticmethod(service.metrics.count)

        for part in ("uvicorn", "python_multipart"):  # no messages about bad requests
            logging.getLogger(part).setLevel(logging.CRITICAL)
        server = _Server(
            uvicorn.Config(
                make_app(service, token),
                http=Bounded,
                root_path=config.root_path,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(config.shutdown_seconds) + 1,
                **tls,  # type: ignore[arg-type]
            )
        )
        service.stopping = lambda: server.should_exit
        host, port = listener.getsockname()[:2]
        try:
            with server.stop:
                announce(config, host, port, predictor.classifier.remarks)
                server.run(sockets=[listener])
        finally:
            service.close()


class _Server(uvicorn.Server):
    """uvicorn's, which stops for a signal that came before its own handlers were there, too.

    Attributes:
        stop: the context to run it in. uvicorn raises the signal again after it has finished; there
            is nothing left to do then.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = StopRequest(notices=False)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop."""
        self.should_exit = self.should_exit or self.stop.requested
        return await super().on_tick(counter)


def announce(config: ServeConfig, host: str, port: int, remarks: Sequence[str]) -> None:
    """Say where the server is, who may use it, and what is assumed of the weights."""
    scheme = "https" if config.tls_key else "http"
    shown = f"[{host}]" if ":" in host else host
    lines = [
        f"{config.weights} is ready on {scheme}://{shown}:{port}/ (interface: /docs); "
        "stop with Ctrl-C or SIGTERM"
    ]
    if not ipaddress.ip_address(host).is_loopback:
        if config.token_file is None:
            lines.append("other machines can reach the server, without a password")
        elif not config.tls_key:
            lines.append("the token crosses the network unencrypted; a certificate would help")
    for line in (*lines, *remarks):
        print(f"densenet121: {line}", file=sys.stderr, flush=True)  # noqa: T201


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason, advice = error.strerror or error, ""
        if error.errno == errno.EADDRINUSE:  # asyncio's own text says it twice
            reason, advice = os.strerror(error.errno), "; pass another `port`"
        raise UsageError(
            f"`host` {host}, `port` {port}: cannot listen ({reason}){advice}"
        ) from None


def _predictor(config: ServeConfig) -> Predictor:
    predictor = Predictor(
        absolute(config.weights),
        **weights_choices(config),
        device=config.device,
        amp=config.amp,
        batch_size=config.per_batch_size,
    )
    predictor.check_options(AnswerOptions(config.top_k))
    return predictor
