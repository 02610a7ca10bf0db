"""The steps of a request: limits, decoding, the network, the answer."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from densenet121.config import ServeConfig
from densenet121.datasets.decoding import is_image, named_instead
from densenet121.inference.predictor import Predictor
from densenet121.serve.batches import Batcher, Reply
from densenet121.serve.bodies import (
    NamedImage,
    Refusal,
    check_coding,
    drain,
    images_of,
    read_body,
)
from densenet121.serve.metrics import Metrics
from densenet121.tasks import AnswerOptions
from densenet121.utils.errors import InputError, TooLargeError

Item = NamedImage | NDArray[np.float32]  # an encoded image, or the normalised input of the network


class Service:
    """What all requests share: the network, the decoding threads and the limits.

    Attributes:
        predictor: the network; used through ``batcher`` and, to prepare images, from threads.
        batcher: the threads that run the network.
        metrics: the values of /metrics.
        stopping: whether a shutdown has begun; the caller sets this function.
        pool: the threads that decode.
    """

    def __init__(
        self, predictor: Predictor, config: ServeConfig, *, workers: int, streams: int
    ) -> None:
        self.predictor, self.config = predictor, config
        self.metrics = Metrics()
        self.batcher = Batcher(predictor, streams, self.metrics.observe_batch, config.cam_layer)
        self.stopping: Callable[[], bool] = lambda: False
        self.images = 0  # accepted and not yet answered
        self.body_bytes = 0  # of request bodies being read or decoded
        self._most_body_bytes = max(2**29, 4 * config.max_bytes)
        self.metrics.watch(lambda: self.images, lambda: self.body_bytes)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self.batcher.alive and not self.stopping()

    def close(self) -> None:
        """Finish the accepted images."""
        self.pool.shutdown(wait=True)
        self.batcher.close()

    def busy(self) -> Refusal:
        """The refusal when no more images can be accepted."""
        wait = self.images * self.batcher.seconds_per_image
        return Refusal(
            503,
            f"busy: {self.images} images are waiting; the limit is {self.config.queue}",
            retry_after=max(1, math.ceil(wait)),
        )

    def _full(self, unread: bool = False) -> Refusal:
        limit = f"{self.body_bytes} bytes of requests are held; the limit is"
        reason = f"busy: {limit} {self._most_body_bytes}"
        return Refusal(503, reason, retry_after=1, unread=unread)

    def check_options(self, options: AnswerOptions) -> None:
        """Refuse what the task cannot answer, before it waits beside the images of others.

        Raises:
            Refusal: 400.
        """
        try:
            self.predictor.check_options(options)
        except InputError as error:
            raise Refusal(400, str(error).replace("`", "")) from None

    async def predict(
        self, request: Request, options: AnswerOptions, cam: bool = False
    ) -> list[tuple[str, Reply]]:
        """The answers for the images of a request, in order.

        Raises:
            Refusal: the request cannot be answered.
        """
        kind = request.headers.get("content-type", "")

        async def images(body: bytes) -> list[NamedImage]:
            check_coding(request.headers)
            return images_of(body, kind, self.config.max_pictures)

        return await self.answer(request, images, lambda: options, cam)

    async def answer(
        self,
        request: Request,
        parse: Callable[[bytes], Awaitable[Sequence[Item]]],
        options: Callable[[], AnswerOptions],
        cam: bool = False,
    ) -> list[tuple[str, Reply]]:
        """The names and answers of what ``parse`` finds in the body, in order.

        ``options`` is called after ``parse``.

        Raises:
            Refusal: the request cannot be answered.
        """
        config = self.config
        held = 0

        def hold(size: int) -> None:  # what has arrived, not what was announced and may never come
            nonlocal held
            if self.body_bytes + size > self._most_body_bytes:
                raise self._full(unread=True)
            self.body_bytes, held = self.body_bytes + size, held + size

        if self.images >= config.queue or self.body_bytes >= self._most_body_bytes:
            refusal = self.busy() if self.images >= config.queue else self._full()
            await drain(request)
            raise refusal
        try:
            body = await read_body(request, config.max_bytes, config.body_seconds, hold)
            items = await parse(body)
            chosen = options()
            if self.images + len(items) > config.queue:
                raise self.busy()
            count = len(items)
            self.images += count
            try:
                async with asyncio.timeout(config.answer_seconds):
                    prepared = await self._prepare(items)
                    names = [item.name if isinstance(item, NamedImage) else "" for item in items]
                    del body, items
                    self.body_bytes, held = self.body_bytes - held, 0
                    waiting = [self.batcher.submit(pixels, chosen, cam) for pixels in prepared]
                    try:
                        answers = [await future for future in waiting]
                    finally:
                        for future in waiting:
                            future.cancel()
            finally:
                self.images -= count
        except TimeoutError:
            raise Refusal(
                503, f"no answer within {config.answer_seconds:g} s", retry_after=1
            ) from None
        finally:
            self.body_bytes -= held
        self.metrics.images.inc(count)
        return list(zip(names, answers, strict=True))

    async def _prepare(self, items: Sequence[Item]) -> list[NDArray[Any]]:
        """The network's input for all images, or a Refusal that names the first bad one."""
        loop = asyncio.get_running_loop()
        tasks = [
            loop.run_in_executor(self.pool, self._pixels, number, item)
            for number, item in enumerate(items, start=1)
        ]
        try:
            return [await task for task in tasks]
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _pixels(self, number: int, image: Item) -> NDArray[Any]:
        if not isinstance(image, NamedImage):
            return image  # normalised by the client
        name = " ".join(image.name.split())
        where = f"image {number}{f' ({name})' if name else ''}: "
        if not image.data:
            raise Refusal(400, f"{where}the file is empty")
        if not is_image(image.data):
            unknown = "not an image of a known format (JPEG, PNG, WebP, ...)"
            raise Refusal(415, f"{where}{named_instead(image.data) or unknown}")
        try:
            return self.predictor.prepare(image.data, self.config.max_pixels)
        except TooLargeError as error:
            raise Refusal(413, f"{where}{error}") from None
        except InputError as error:
            raise Refusal(422, f"{where}{error}") from None
