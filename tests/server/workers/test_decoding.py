"""Pictures are decoded in processes that may die."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")


from brivl_search.corpus.images import PixelSpec
from brivl_search.errors import ImageError
from brivl_search.server.workers.decoding import Decoders
from tests.support.pictures import CRASH, EXIT, HANG, jpeg, naughty_decode


def test_a_process_imports_what_decoding_needs_and_not_the_server() -> None:
    decoders = Decoders(1, timeout_s=20, max_megapixels=10)

    async def names() -> list[str]:
        await decoders.pixels(jpeg((20, 10)), PixelSpec(8))
        _, asked = decoders._run(eval, "[*__import__('sys').modules]")
        return await asyncio.wrap_future(asked)

    try:
        found = {name.partition(".")[0] for name in asyncio.run(names())}
        assert "PIL" in found and not found & {"fastapi", "starlette", "uvicorn", "faiss", "lmdb", "torch"}
    finally:
        decoders.close()


@pytest.mark.parametrize("moment", [0, 0.001, 0.003, 0.01])
def test_a_pool_that_ends_under_a_request_is_started_again(moment: float) -> None:
    """Whether a process has begun with it or not: no request waits for ever."""
    decoders = Decoders(1, timeout_s=20, max_megapixels=10)

    async def widths() -> list[int]:
        under_way = [asyncio.create_task(decoders.pixels(jpeg((20 + n, 10)), PixelSpec(8))) for n in range(4)]
        await asyncio.sleep(moment)
        await asyncio.to_thread(decoders.close)
        return [one.width for one in await asyncio.wait_for(asyncio.gather(*under_way), 60)]

    try:
        assert asyncio.run(widths()) == [20, 21, 22, 23]
    finally:
        decoders.close()


def test_a_picture_that_kills_its_decoder_costs_only_itself() -> None:
    decoders = Decoders(1, timeout_s=1.5, max_megapixels=10, decoder=naughty_decode)

    async def told(data: bytes) -> str:
        try:
            return str((await decoders.pixels(data, PixelSpec(8))).width)
        except ImageError as error:
            return error.reason

    async def all_of_them() -> list[str]:
        return [await told(data) for data in (jpeg((20, 10)), CRASH, EXIT, jpeg((30, 10)), HANG, jpeg((40, 10)))]

    try:
        expected = ["20", "decoder crashed", "decoder crashed", "30", "decoding timed out", "40"]
        assert asyncio.run(all_of_them()) == expected
    finally:
        decoders.close()
