"""Pictures of kinds that everyday photos are not: documents, charts, screens, drawings, micrographs, textures, noise.

Most are made, from a seed; micrographs and some textures come with scikit-image. Everyday captions are wrong for them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 320
_TEXT = (
    "the total amount due is payable within thirty days of this notice please refer "
    "to section two of the agreement and keep your receipt for tax purposes net "
    "price quantity unit order number customer reference date signature report analysis method results table "
    "figure introduction summary chapter appendix index contents invoice payment account"
)
_WORDS = _TEXT.split()

# What scikit-image brings that is no everyday photo, by kind. Nothing is fitted on them.
_BROUGHT = {
    "page.png": "document", "text.png": "document", "phantom.png": "drawing", "horse.png": "drawing",
    "logo.png": "drawing", "color.png": "drawing", "chessboard_GRAY.png": "texture", "chessboard_RGB.png": "texture",
    "brick.png": "texture", "gravel.png": "texture", "grass.png": "texture", "cell.png": "micrograph",
    "ihc.png": "micrograph", "microaneurysms.png": "micrograph", "retina.jpg": "micrograph",
    "hubble_deep_field.jpg": "micrograph",
}  # fmt: skip

Array = np.ndarray
Random = np.random.Generator


def _colour(rng: Random, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    r, g, b = (int(value) for value in rng.integers(low, high, 3))
    return r, g, b


def _said(rng: Random, count: int) -> str:
    return " ".join(_WORDS[at] for at in rng.integers(0, len(_WORDS), count))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def document(rng: Random) -> Image.Image:
    """A page of text, a form or a receipt, sometimes as it is photographed: grey and a little turned."""
    narrow = rng.random() < 0.3
    page = Image.new("RGB", (SIDE * 2 // 3 if narrow else SIDE, SIDE * 3 // 2), _colour(rng, 225, 256))
    draw, size, y = ImageDraw.Draw(page), int(rng.integers(8, 16)), 16
    if rng.random() < 0.6:
        draw.text((20, y), _said(rng, 3).title(), fill=(20, 20, 20), font=_font(size * 2))
        y += size * 3
    while y < page.height - 30:
        if rng.random() < 0.08:
            draw.line((18, y + 4, page.width - 18, y + 4), fill=(90, 90, 90))
        elif rng.random() < 0.12:
            y += size
        words = _said(rng, int(rng.integers(2, 12 if not narrow else 4)))
        draw.text((20, y), words, fill=_colour(rng, 0, 70), font=_font(size))
        if narrow:
            draw.text((page.width - 50, y), f"{rng.random() * 90:.2f}", fill=(30, 30, 30), font=_font(size))
        y += size + int(rng.integers(2, 8))
    if rng.random() < 0.4:
        page = page.rotate(float(rng.uniform(-8, 8)), expand=True, fillcolor=_colour(rng, 60, 180))
    return page


def chart(rng: Random) -> Image.Image:
    """Lines, bars, a pie or points with axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=80)
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    kind, count = int(rng.integers(0, 5)), int(rng.integers(4, 12))
    if kind == 0:
        for _ in range(int(rng.integers(1, 5))):
            axes.plot(rng.standard_normal(60).cumsum())
    elif kind == 1:
        axes.bar(range(count), rng.random(count), color=rng.random((count, 3)))
    elif kind == 2:
        axes.pie(rng.random(count) + 0.1)
    elif kind == 3:
        axes.scatter(rng.standard_normal(150), rng.standard_normal(150), c=rng.random(150), cmap="viridis")
    else:
        axes.imshow(rng.random((count, count)), cmap=str(rng.choice(["viridis", "magma", "gray", "coolwarm"])))
    axes.set_title(_said(rng, 3))
    axes.set_xlabel(_said(rng, 2))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def screen(rng: Random) -> Image.Image:
    """A window with a bar, a list, buttons and text, light or dark; or a console."""
    dark = rng.random() < 0.5
    ground, ink = ((28, 30, 36), (210, 214, 220)) if dark else ((246, 247, 249), (40, 44, 52))
    page = Image.new("RGB", (SIDE * 3 // 2, SIDE), ground)
    draw, accent, size = ImageDraw.Draw(page), _colour(rng, 40, 220), int(rng.integers(8, 13))
    draw.rectangle((0, 0, page.width, 26), fill=accent)
    draw.text((10, 6), _said(rng, 3), fill=(255, 255, 255), font=_font(size))
    left = 8
    if rng.random() < 0.7:
        left = int(rng.integers(90, 140))
        draw.rectangle((0, 26, left - 8, page.height), fill=tuple(max(value - 14, 0) for value in ground))
        for y in range(36, page.height - 20, size + 10):
            draw.text((8, y), _said(rng, 1), fill=ink, font=_font(size))
    y = 38
    while y < page.height - 24:
        if rng.random() < 0.2:
            draw.rounded_rectangle((left, y, left + 90, y + 20), 5, fill=accent)
            y += 28
        elif rng.random() < 0.15:
            draw.rectangle((left, y, page.width - 16, y + 40), outline=ink)
            y += 48
        else:
            draw.text(
                (left + 14 * int(rng.integers(0, 3)), y),
                _said(rng, int(rng.integers(2, 9))),
                fill=ink,
                font=_font(size),
            )
            y += size + 6
    return page


def drawing(rng: Random) -> Image.Image:
    """Flat shapes, a sketch of lines, or an icon."""
    page = Image.new("RGB", (SIDE, SIDE), (255, 255, 255) if rng.random() < 0.6 else _colour(rng, 120))
    draw, style = ImageDraw.Draw(page), rng.random()
    for _ in range(int(rng.integers(1, 9))):
        x, y = rng.integers(0, SIDE - 60, 2).tolist()
        w, h = rng.integers(30, 200, 2).tolist()
        fill = None if style < 0.4 else _colour(rng)
        shape = rng.integers(0, 4)
        if shape == 0:
            draw.ellipse((x, y, x + w, y + h), fill=fill, outline=(0, 0, 0), width=3)
        elif shape == 1:
            draw.rectangle((x, y, x + w, y + h), fill=fill, outline=(0, 0, 0), width=3)
        elif shape == 2:
            draw.polygon(
                [tuple(point) for point in rng.integers(0, SIDE, (3, 2)).tolist()], fill=fill, outline=(0, 0, 0)
            )
        else:
            draw.line([tuple(point) for point in rng.integers(0, SIDE, (6, 2)).tolist()], fill=(0, 0, 0), width=3)
    return page


def micrograph(rng: Random) -> Image.Image:
    """Cells, stained or bright on dark; or stained tissue."""
    if rng.random() < 0.4:
        dye, ground = np.array(_colour(rng, 40, 180)), np.array(_colour(rng, 190, 245))
        nuclei, ink = _stones(rng) * _clouds(rng), np.array(_colour(rng, 20, 120))
        value = _clouds(rng)[..., None]
        tissue = value * dye + (1 - value) * ground
        tissue = np.where((nuclei > np.quantile(nuclei, rng.uniform(0.6, 0.9)))[..., None], ink, tissue)
        return Image.fromarray(np.clip(tissue + rng.normal(0, 10, tissue.shape), 0, 255).astype(np.uint8))
    dark = rng.random() < 0.5
    page = Image.new("RGB", (SIDE, SIDE), _colour(rng, 0, 30) if dark else _colour(rng, 200, 250))
    draw = ImageDraw.Draw(page)
    stain, radius = _colour(rng, 60, 220), int(rng.integers(5, 30))
    for _ in range(int(rng.integers(15, 160))):
        x, y = rng.integers(0, SIDE, 2).tolist()
        a, b = (rng.uniform(0.6, 1.5, 2) * radius).tolist()
        tone = tuple(int(np.clip(value + rng.normal(0, 25), 0, 255)) for value in stain)
        draw.ellipse((x - a, y - b, x + a, y + b), fill=tone, outline=tuple(value // 2 for value in tone))
        draw.ellipse((x - a / 3, y - b / 3, x + a / 3, y + b / 3), fill=tuple(value // 3 for value in tone))
    grain = rng.normal(0, 8, (SIDE, SIDE, 1))
    blurred = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3))))
    return Image.fromarray(np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8))


def _clouds(rng: Random) -> Array:
    """float (SIDE, SIDE), 0 to 1: noise of five sizes."""
    value = np.zeros((SIDE, SIDE))
    for cells in (4, 8, 16, 32, 64):
        coarse = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        value += np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / cells
    value -= value.min()
    clouds: Array = value / value.max()
    return clouds


def _stones(rng: Random) -> Array:
    """float (SIDE, SIDE), 0 to 1: pebbles, each of one brightness, dark between them."""
    half = SIDE // 2
    y, x = np.mgrid[:half, :half].reshape(2, -1)
    points = rng.random((int(rng.integers(60, 500)), 2)) * half
    distance = (y[:, None] - points[:, 0]) ** 2 + (x[:, None] - points[:, 1]) ** 2
    nearest = np.sqrt(np.partition(distance, 1, axis=1)[:, :2])
    tone = rng.uniform(0.3, 1, len(points))[distance.argmin(1)]
    value = tone * np.clip((nearest[:, 1] - nearest[:, 0]) / 4, 0.15, 1)
    coarse = Image.fromarray((value.reshape(half, half) * 255).astype(np.uint8))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255


def _blades(rng: Random) -> Array:
    """float (SIDE, SIDE), 0 to 1: thousands of short strokes, as of grass, hair or straw."""
    page = Image.new("L", (SIDE, SIDE), 60)
    draw, length, lean = ImageDraw.Draw(page), rng.uniform(8, 50), rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(800, 4000))):
        x, y = rng.integers(0, SIDE, 2).tolist()
        angle = lean + rng.normal(0, 0.5)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line((x, y, *end), fill=int(rng.integers(20, 250)), width=int(rng.integers(1, 4)))
    return np.asarray(page) / 255


def texture(rng: Random) -> Image.Image:
    """Clouds, stripes, checks, a weave, stones or blades, in one colour or from one to another."""
    kind = rng.integers(0, 6)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    if kind == 0:
        value = _clouds(rng)
    elif kind == 1:
        turned = x * np.cos(a := rng.uniform(0, np.pi)) + y * np.sin(a)
        value = 0.5 + 0.5 * np.sin(turned * rng.uniform(20, 200))
    elif kind == 2:
        cells = int(rng.integers(4, 24))
        value = ((x * cells).astype(int) + (y * cells).astype(int)) % 2
    elif kind == 3:
        value = 0.5 + 0.25 * np.sin(x * rng.uniform(60, 200)) + 0.25 * np.sin(y * rng.uniform(60, 200))
    else:
        value = _stones(rng) if kind == 4 else _blades(rng)
    one, other = np.array(_colour(rng)), np.array(_colour(rng, 0, 60) if kind > 3 else _colour(rng))
    if rng.random() < 0.4:
        one = np.full(3, one.mean())
        other = np.full(3, other.mean())
    mixed = value[..., None] * one + (1 - value[..., None]) * other + rng.normal(0, rng.uniform(0, 20), (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def noise(rng: Random) -> Image.Image:
    """White noise, one colour, or a run from one colour to another."""
    kind = rng.integers(0, 3)
    if kind == 0:
        grey = rng.random() < 0.5
        return Image.fromarray(
            np.broadcast_to(rng.integers(0, 256, (SIDE, SIDE, 1 if grey else 3)), (SIDE, SIDE, 3)).astype(np.uint8)
        )
    if kind == 1:
        return Image.new("RGB", (SIDE, SIDE), _colour(rng))
    run = np.linspace(0, 1, SIDE)[:, None, None] if rng.random() < 0.5 else np.linspace(0, 1, SIDE)[None, :, None]
    mixed = run * np.array(_colour(rng)) + (1 - run) * np.array(_colour(rng))
    return Image.fromarray(np.broadcast_to(mixed, (SIDE, SIDE, 3)).astype(np.uint8))


MADE: dict[str, Callable[[Random], Image.Image]] = {
    make.__name__: make for make in (document, chart, screen, drawing, micrograph, texture, noise)
}


def made(each: int, seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """(kind, RGB picture), so many of each kind."""
    for number, (kind, make) in enumerate(MADE.items()):
        for at in range(each):
            yield kind, make(np.random.default_rng((seed, number, at)))


def brought() -> Iterator[tuple[str, Image.Image]]:
    """(kind, RGB picture): what scikit-image brings, whole and in quarters; nothing where it is not installed."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return
    for name, kind in _BROUGHT.items():
        path = Path(spec.origin).parent / "data" / name
        if path.is_file():
            whole = Image.open(path).convert("RGB")
            yield kind, whole
            if kind != "drawing":
                for x in (0, whole.width // 2):
                    for y in (0, whole.height // 2):
                        yield kind, whole.crop((x, y, x + whole.width // 2, y + whole.height // 2))
