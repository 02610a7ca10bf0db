"""What the requests share, and a request's way: limits, decoding, the network, the answer."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from densenet121.config import ServeConfig
from densenet121.datasets.decoding import is_image
from densenet121.inference.predictor import Predictor
from densenet121.serve.batches import Batcher, Reply
from densenet121.serve.bodies import NamedImage, Refusal, drain, images_of, read_body
from densenet121.serve.metrics import Metrics
from densenet121.tasks import AnswerOptions
from densenet121.utils.errors import InputError, TooLargeError


class Service:
    """What the requests share: the network, the threads that decode, and how much may wait.

    Attributes:
        predictor: the weights; used through ``batcher`` and, to prepare images, from threads.
        batcher: the thread that computes.
        metrics: what /metrics tells.
        stopping: whether a shutdown has begun; set by whoever runs the server.
    """

    def __init__(
        self, predictor: Predictor, config: ServeConfig, *, workers: int, streams: int
    ) -> None:
        self.predictor, self.config = predictor, config
        self.metrics = Metrics()
        self.batcher = Batcher(predictor, streams, self.metrics.observe_batch, config.cam_layer)
        self.stopping: Callable[[], bool] = lambda: False
        self.images = 0  # taken in and not yet answered
        self.body_bytes = 0  # of bodies being read or decoded
        self.metrics.watch(lambda: self.images, lambda: self.body_bytes)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def close(self) -> None:
        """Finish what was taken in."""
        self._pool.shutdown(wait=True)
        self.batcher.close()

    def busy(self) -> Refusal:
        """What to say where no more can be taken in."""
        wait = self.images * self.batcher.seconds_per_image
        return Refusal(
            503,
            f"busy: {self.images} images are waiting, at most {self.config.queue} may",
            retry_after=max(1, math.ceil(wait)),
        )

    async def predict(
        self, request: Request, options: AnswerOptions, cam: bool = False
    ) -> list[tuple[str, Reply]]:
        """The answers for a request's images, in their order.

        Raises:
            Refusal: there will be none.
        """
        config = self.config
        # A body may be as large as allowed before its images can be counted.
        held = config.max_bytes
        most_held = max(2**29, 4 * held)
        if self.images >= config.queue or self.body_bytes + held > most_held:
            await drain(request)
            raise self.busy()
        self.body_bytes += held
        try:
            body = await read_body(request, config.max_bytes, config.body_seconds)
            self.body_bytes += len(body) - held
            held = len(body)
            kind = request.headers.get("content-type", "")
            images = images_of(body, kind, config.max_pictures)
            if self.images + len(images) > config.queue:
                raise self.busy()
            count = len(images)
            self.images += count
            try:
                async with asyncio.timeout(config.answer_seconds):
                    prepared = await self._prepare(images)
                    names = [image.name for image in images]
                    del body, images
                    self.body_bytes, held = self.body_bytes - held, 0
                    waiting = [self.batcher.submit(pixels, options, cam) for pixels in prepared]
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

    async def _prepare(self, images: list[NamedImage]) -> list[NDArray[np.uint8]]:
        """The pixels that the network is shown; all of them, or a Refusal that names one."""
        loop = asyncio.get_running_loop()
        tasks = [
            loop.run_in_executor(self._pool, self._pixels, number, image)
            for number, image in enumerate(images, start=1)
        ]
        try:
            return [await task for task in tasks]
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _pixels(self, number: int, image: NamedImage) -> NDArray[np.uint8]:
        where = f"image {number}{f' ({image.name})' if image.name else ''}: "
        if not image.data:
            raise Refusal(400, f"{where}it is empty")
        if not is_image(image.data):
            raise Refusal(415, f"{where}not an image of a known format (JPEG, PNG, WebP, ...)")
        try:
            return self.predictor.prepare(image.data, self.config.max_pixels)
        except TooLargeError as error:
            raise Refusal(413, f"{where}{error}") from None
        except InputError as error:
            raise Refusal(422, f"{where}{error}") from None
