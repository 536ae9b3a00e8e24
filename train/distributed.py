"""Training by several processes (`torchrun`): each has its slice of every batch, all have the same towers and queues.

Nothing here does anything in a single process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET = 1 << 24  # numbers: 64 MiB in float32


def start(device: str) -> tuple[int, int]:
    """Joins the other processes where `torchrun` started this one; (rank, number of processes)."""
    if "LOCAL_RANK" not in os.environ:
        return 0, 1
    cuda = device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    return dist.get_rank(), dist.get_world_size()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes and shows."""
    return rank() == 0


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process goes through the block, then the others, who find what it has made."""
    if dist.is_initialized() and dist.get_rank():
        dist.barrier()
    yield
    if dist.is_initialized() and not dist.get_rank():
        dist.barrier()


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """(n, …) of every process → (processes · n, …) in order of rank, without gradient."""
    if not dist.is_initialized():
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


# torch.distributed.nn.functional.all_gather gives the same gradients, but newer torch deprecates it (a FutureWarning in
# 2.14) in favour of a private module.
class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather_with_gradient(x: Tensor) -> Tensor:
    """As `gather`, and every process' gradient of a row comes back, summed, to the process that made the row.

    Where each process computes the same loss from all rows, `average_gradients` afterwards gives that loss's gradient.
    """
    rows: Tensor = _Gather.apply(x) if dist.is_initialized() else x
    return rows


def gather_objects(value: Any) -> list[Any]:
    """The value of every process, in order of rank."""
    if not dist.is_initialized():
        return [value]
    out: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(out, value)
    return out


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over the processes, in place, in transfers of about `BUCKET` numbers, so that little memory is taken."""
    if not dist.is_initialized():
        return
    bucket: list[Tensor] = []
    waiting = 0
    for grad in [*(p.grad for p in parameters if p.grad is not None), None]:
        if grad is not None:
            bucket.append(grad)
            waiting += grad.numel()
        if bucket and (grad is None or waiting >= BUCKET):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            for part, mean in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                part.copy_(mean.view_as(part))
            bucket, waiting = [], 0


def average(value: float, device: torch.device) -> float:
    """Mean of a number over the processes."""
    if not dist.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def any_of(value: bool, device: torch.device) -> bool:
    """Whether the value is true in some process."""
    return average(float(value), device) > 0
