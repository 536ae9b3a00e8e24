"""The parts of gpu.py that measure the card and the towers; and what all parts share."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu import Cases
    from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parent.parent
SHAPES = REPOSITORY / "brivl_search" / "encoders" / "brivl" / "official" / "configs"


@dataclass(frozen=True)
class Job:
    """What a part is told.

    Attributes:
        device: torch's name of it.
        small: tiny models and inputs, to test the script.
        seconds: that the part may take.
        images: a folder of JPEGs; None: made ones.
        cases: where measurements go.
    """

    device: str
    small: bool
    seconds: float
    images: Path | None
    cases: Cases

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")


def settle(job: Job) -> None:
    """Waits for the card: its calls return before they are done."""
    if job.cuda:
        import torch

        torch.cuda.synchronize(job.device)


def seconds_of(job: Job, call: Callable[[], Any], budget: float, *, warm: int = 2) -> float:
    """The median of calls for `budget` seconds, at least three; each waits for the card."""
    for _ in range(warm):
        call()
    settle(job)
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 3 or time.perf_counter() - began < budget:
        start = time.perf_counter()
        call()
        settle(job)
        took.append(time.perf_counter() - start)
        if len(took) >= 500:
            break
    return statistics.median(took)


# -- matrix products -----------------------------------------------------------------------------------------------


def matmul(job: Job) -> None:
    """n × n by n × n in bfloat16, random numbers: zeros are faster and nobody multiplies them."""
    import torch

    card = torch.cuda.get_device_name(job.device) if job.cuda else "none"
    job.cases.put("machine", card=card, torch=torch.__version__, cuda=torch.version.cuda, cpus=os.cpu_count())
    for n in (256,) if job.small else (4096, 8192, 16384):

        def measure(n: int = n) -> dict[str, Any]:
            a, b = (torch.randn(n, n, device=job.device, dtype=torch.bfloat16) for _ in range(2))
            took = seconds_of(job, lambda: a @ b, 1.0)
            return {"flops_per_second": 2 * n**3 / took, "ms": 1000 * took}

        job.cases.attempt(f"bfloat16 {n}", measure)


# -- towers --------------------------------------------------------------------------------------------------------


def made_tower(which: str, small: bool) -> tuple[nn.Module, Callable[[int], Tensor]]:
    """An image tower, ready for inference, and what makes its input: n → a batch on the CPU."""
    import torch
    import transformers

    if which == "brivl-mini":
        from brivl_search.encoders.brivl.encoder import BriVLEncoder
        from brivl_search.encoders.registry import load_encoder

        encoder = load_encoder("brivl-mini", device="cpu")
        assert isinstance(encoder, BriVLEncoder)
        return encoder.image_tower, partial(made_pixels, side=encoder.pixels.size)
    if which.startswith("brivl-"):
        from brivl_search.encoders.brivl.image_tower import ImageTower

        config = brivl_shape({"brivl-b5": "brivl-2.0", "brivl-b7": "brivl-paper"}[which], small)
        tower = ImageTower(config.image, config.dim).eval()
        tower.fuse()
        return tower, partial(made_pixels, side=config.image.pixels.size)
    size: dict[str, Any] = {"image_size": 224, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    size |= {"intermediate_size": 3072, "patch_size": 32 if which == "vit-b-32" else 16}
    if small:
        size |= {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        size |= {"intermediate_size": 64}
    model: Any
    if which == "vit-b-32":
        model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**size, projection_dim=512))
    elif which == "chinese-clip-b-16":
        model = transformers.ChineseCLIPVisionModel(transformers.ChineseCLIPVisionConfig(**size))
    else:
        raise ValueError(f"no tower {which}")
    side = size["image_size"]
    return model.eval(), lambda n: torch.randn(n, 3, side, side).contiguous(memory_format=torch.channels_last)


def brivl_shape(name: str, small: bool) -> Any:
    """The sizes of a published BriVL model; small: its shape with a tiny CNN and few pixels."""
    from brivl_search.encoders.brivl.config import BackboneConfig, ModelConfig

    config = ModelConfig.from_dict(json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8")))
    if not small:
        return config
    image = replace(config.image, backbones=[BackboneConfig("mobilenetv2_035")], width=32)
    image = replace(image, pixels=replace(image.pixels, size=64), head=replace(image.head, layers=1, heads=2))
    return replace(config, image=image, dim=32)


def made_pixels(count: int, side: int) -> Tensor:
    """uint8 (count, side, side, 3)."""
    import torch

    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def tower(job: Job, which: str) -> None:
    """Images/s of one image tower, eager and compiled, at the largest batch of a few that fits."""
    import torch

    model, inputs = made_tower(which, job.small)
    model = model.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    flops = flops_of(job, model, inputs)
    job.cases.put("flops", flops_of_an_image=flops)
    for name in ("eager", "compiled"):
        call = model if name == "eager" else torch.compile(model, dynamic=False)
        torch.backends.mha.set_fastpath_enabled(name == "eager")  # its fused operator, once compiled, sees no autocast
        for batch in (2,) if job.small else (256, 128, 64, 32, 16):
            measured = job.cases.attempt(name, partial(tower_rate, job, call, inputs, batch, flops))
            if measured is not None or "OutOfMemory" not in str(job.cases.found[name].get("failed", "")):
                break
            torch.cuda.empty_cache()


def forward(job: Job, model: Callable[..., Any], batch: Tensor) -> Any:
    """As the encoders run it: without gradients, in bfloat16 by autocast."""
    import torch

    with torch.inference_mode(), torch.autocast(torch.device(job.device).type, torch.bfloat16):
        return model(batch)


def tower_rate(
    job: Job, model: Callable[..., Any], inputs: Callable[[int], Tensor], batch: int, flops: float
) -> dict[str, Any]:
    """One tower at one batch; its first call, which may compile, apart."""
    images = inputs(batch).to(job.device)
    start = time.perf_counter()
    forward(job, model, images)
    settle(job)
    first = time.perf_counter() - start
    took = seconds_of(job, lambda: forward(job, model, images), 0.1 if job.small else 5.0)
    rate = batch / took
    return {
        "images_per_second": rate,
        "batch": batch,
        "first_call_s": first,
        "flops_per_second": rate * flops,
        **peak(job),
    }


def peak(job: Job) -> dict[str, int]:
    """The most bytes that torch took of the card so far."""
    import torch

    return {"peak_bytes": torch.cuda.max_memory_allocated(job.device)} if job.cuda else {}


def flops_of(job: Job, model: nn.Module, inputs: Callable[[int], Tensor]) -> float:
    """FLOPs of one image, as torch counts them: matrix products, convolutions and attention, 2 for a multiply-add."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is not counted
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(inputs(1).to(job.device))
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return float(counter.get_total_flops())
