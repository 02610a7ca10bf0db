"""Batch the images of all clients for one network.

No image waits for a batch to fill: while one batch is computed, the next one is collected. A single
client gets its answer at once, and many clients get full batches.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.inference.maps import check_maps, maps_of
from densenet121.inference.predictor import Predictor
from densenet121.network import constant_network
from densenet121.tasks import Answer, AnswerOptions

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer for one image, its logits ``(K,)``, and a PNG of its map if requested."""

    answer: Answer
    logits: NDArray[np.float32]
    cam: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    pixels: NDArray[Any]  # uint8 of an image, or the normalised float32 of a client
    options: AnswerOptions
    cam: bool
    future: "asyncio.Future[Reply]"


class Batcher:
    """Threads that run the network, and a queue of images.

    Attributes:
        waiting: number of submitted images without an answer.
        seconds_per_image: running mean over the last batches.
    """

    def __init__(
        self,
        predictor: Predictor,
        streams: int,
        observe: Callable[[int, float], None] = lambda n, s: None,
        cam_layer: str | None = None,
    ) -> None:
        """Warm up the network and start the threads.

        Args:
            predictor: the network; it must not be changed or used elsewhere meanwhile.
            streams: number of threads, each with its share of the cores. Two are faster than one
                on all cores, because decoding or I/O on one core does not delay the other.
            observe: called with the size and the seconds of every batch.
            cam_layer: the layer of class-activation maps (default: the last).

        Raises:
            InputError: the network cannot compute, or has no such layer.
        """
        self._cam_layer = cam_layer
        self.waiting = 0
        self.seconds_per_image = 0.0
        self._predictor = predictor
        self._observe: Callable[[int, float], None] = lambda n, s: None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        for size in (predictor.batch_size, 1):
            self._measure(torch.zeros((size, *predictor.pixels_size, 3), dtype=torch.uint8))
        if cam_layer is not None:
            check_maps(predictor, cam_layer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._observe = observe
        self._cores_each = max(1, torch.get_num_threads() // streams)
        self._threads = [
            threading.Thread(target=self._run, name=f"network {i}", daemon=True)
            for i in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all threads are running."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(
        self, pixels: NDArray[Any], options: AnswerOptions, cam: bool = False
    ) -> "asyncio.Future[Reply]":
        """The future reply for prepared pixels, or for a normalised image; call it in the loop."""
        self._loop = asyncio.get_running_loop()
        job = _Job(pixels, options, cam, self._loop.create_future())
        self.waiting += 1
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Finish all submitted images, then end the threads."""
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._cores_each)  # applies to the calling thread only
        with constant_network(self._predictor.classifier.model):
            self._answer_all()

    def _answer_all(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, stopping = [first], False
            while len(jobs) < self._predictor.batch_size:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    stopping = True
                    break
                jobs.append(job)
            # Images whose client has stopped waiting (a timeout) are not computed.
            wanted = [job for job in jobs if not job.future.cancelled()]
            try:
                found = self._replies(wanted) if wanted else []
            except Exception as error:  # the thread must survive any batch
                found = [error] * len(wanted)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver, wanted, found, len(jobs))
            if stopping:
                break
        self._jobs.put(None)  # for the next thread

    def _deliver(self, jobs: list[_Job], found: Sequence[Reply | Exception], taken: int) -> None:
        self.waiting -= taken
        for job, answer in zip(jobs, found, strict=True):
            if job.future.done():
                continue
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)

    def _replies(self, jobs: list[_Job]) -> list[Reply | Exception]:
        """A reply for each job, or why it has none: a fault reaches only those that share it."""
        replies: dict[int, Reply | Exception] = {}
        for kind in {job.pixels.dtype for job in jobs}:
            alike = [i for i, job in enumerate(jobs) if job.pixels.dtype == kind]
            replies |= _of_group(alike, lambda at: self._replies_of_a_kind([jobs[i] for i in at]))
        return [replies[i] for i in range(len(jobs))]

    def _replies_of_a_kind(self, jobs: list[_Job]) -> list[Reply | Exception]:
        images = torch.from_numpy(np.stack([job.pixels for job in jobs]))
        logits = self._measure(images)
        answers: dict[int, Answer | Exception] = {}
        for options in {job.options for job in jobs}:
            alike = [i for i, job in enumerate(jobs) if job.options == options]
            answers |= _of_group(alike, partial(self._answers, logits, options))
        drawn: dict[int, bytes | Exception] = {}
        with_map = [i for i, job in enumerate(jobs) if job.cam]
        if with_map:
            drawn = _of_group(
                with_map,
                lambda at: maps_of(self._predictor, images[at], logits[at], self._cam_layer),
            )
        return [
            _reply(answers[i], logits[i], drawn.get(i) if job.cam else None)
            for i, job in enumerate(jobs)
        ]

    def _answers(
        self, logits: NDArray[np.float32], options: AnswerOptions, places: list[int]
    ) -> Sequence[Answer]:
        found: Sequence[Answer] = self._predictor.answers(logits[places], options)
        return found

    def _measure(self, images: torch.Tensor) -> NDArray[np.float32]:
        start = time.perf_counter()
        logits = self._predictor.logits(images)
        seconds = time.perf_counter() - start
        each = seconds / len(images)
        self.seconds_per_image += 0.1 * (each - self.seconds_per_image)
        self._observe(len(images), seconds)
        return logits


def _of_group(
    places: list[int], compute: Callable[[list[int]], Sequence[Found]]
) -> dict[int, Found | Exception]:
    """Place to what ``compute`` finds for it; if it fails, its exception for each of them."""
    try:
        return dict(zip(places, compute(places), strict=True))
    except Exception as error:  # the others of the batch have nothing to do with it
        return dict.fromkeys(places, error)


def _reply(
    answer: Answer | Exception, logits: NDArray[np.float32], drawn: bytes | Exception | None
) -> Reply | Exception:
    fault = next((found for found in (answer, drawn) if isinstance(found, Exception)), None)
    if fault is not None:
        return fault
    assert isinstance(answer, Answer) and not isinstance(drawn, Exception)
    return Reply(answer, logits, drawn)
