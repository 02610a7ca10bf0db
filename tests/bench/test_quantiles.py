"""The quantiles of bench are those of what was measured."""

import asyncio
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densenet121.bench.quantiles import quantiles, quartiles
from densenet121.bench.serve import Load, load


def test_quartiles_of_few_turns_are_by_hand() -> None:
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert quartiles([20.0, 10.0]) == (12.5, 15.0, 17.5)
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_no_quantile_lies_beyond_the_measurements(values: list[float]) -> None:
    low, middle, high = quartiles(values)
    assert min(values) <= low <= middle <= high <= max(values)
    assert middle == pytest.approx(np.median(values))
    assert quantiles(values, [0.99])[0] <= max(values)


def test_no_request_is_said_to_take_longer_than_the_slowest() -> None:
    """Of two requests, of 400 and 800 ms, p99 cannot be above the time of the whole turn."""
    number = count()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep((0.4, 0.8)[next(number)])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def measure() -> Load:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await load(port, [b"image"], clients=2, seconds=0.3)

    found = asyncio.run(measure())
    assert found.requests == 2
    assert 600 < found.p99_milliseconds < 1000 * found.requests / found.images_per_second
