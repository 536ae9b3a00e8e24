"""The verb that keeps an index open for others: serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brivl_search.cli.app import app, byte_count
from brivl_search.cli.options import (
    DEFAULT_INDEX,
    DeviceOption,
    EncoderOption,
    IndexOption,
    PrecisionKind,
    PrecisionOption,
    Quiet,
    RerankTop,
    RerankWith,
    RuntimeKind,
    RuntimeOption,
)
from brivl_search.errors import BrivlSearchError, DependencyError, install_hint

if TYPE_CHECKING:
    import socket

    from brivl_search.encoders.runtimes.choice import Precision, Runtime
    from brivl_search.server import Settings

MORE = "the HTTP server needs more packages"


@app.command()
def serve(
    index: IndexOption = DEFAULT_INDEX,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="BRIVL_SEARCH_TOKEN", show_envvar=True, help="What clients must show (Bearer, or the page asks)."
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse to add or remove items.")] = False,
    upload_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where images are kept that clients add [default: none are].")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Requests a second of each client, 0: any [default: 0 on loopback, else 100]."),
    ] = None,
    max_k: Annotated[int, typer.Option(min=1, help="Most hits of a request.")] = 1000,
    max_upload: Annotated[str, typer.Option(metavar="SIZE", help="Most bytes of an uploaded picture.")] = "20M",
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Of an uploaded picture.")] = 50,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that clients call this server by: a proxy's, with its port if odd."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="A proxy whose X-Forwarded-For, -Host and -Proto are believed."),
    ] = None,
    warm: Annotated[bool, typer.Option(help="Load both towers at once, rather than with the first picture.")] = True,
    log_queries: Annotated[bool, typer.Option("--log-queries", help="Write what is asked into the log.")] = False,
    rerank_with: RerankWith = None,
    rerank_top: RerankTop = 32,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every request: pages, thumbnails and health checks too.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Serve a web page and an HTTP API (needs the extra `serve`)."""
    try:
        from brivl_search.server import Settings
    except ImportError as error:
        raise DependencyError(f"{MORE} ({error.name}): {install_hint('serve')}") from None

    settings = Settings(
        host=host,
        token=token,
        read_only=read_only,
        upload_dir=upload_dir,
        rate=rate,
        max_k=max_k,
        max_upload_bytes=byte_count("--max-upload", max_upload),
        max_megapixels=max_megapixels,
        allowed_hosts=tuple(allow_host or ()),
        trusted_proxies=tuple(trusted_proxy or ()),
        warm=warm,
        log_queries=log_queries,
        rerank_with=rerank_with,
        rerank_top=rerank_top,
    )
    _run(index, settings, port, encoder, device, runtime.value, precision.value, quiet, verbose)


def _run(
    index: Path,
    settings: Settings,
    port: int,
    encoder: str | None,
    device: str,
    runtime: Runtime,
    precision: Precision,
    quiet: bool,
    verbose: bool,
) -> None:
    """Until interrupted or terminated. Requests under way are answered first."""
    import logging

    import uvicorn

    from brivl_search.encoders.memory import few_heaps
    from brivl_search.index import gpu
    from brivl_search.output import say, warn
    from brivl_search.search.engine import Engine
    from brivl_search.server import create_app
    from brivl_search.server.listening import server_options

    few_heaps()
    gpu.choose(device)
    engine = Engine(index, encoder=encoder, device=device, runtime=runtime, precision=precision, stays=True)
    for line in engine.reader.damage:
        warn(line)
    _ = engine.encoder  # one that does not fit the index is told now
    if settings.rerank_with is not None:
        engine.reranker(settings.rerank_with)
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    if verbose:
        logging.getLogger("brivl_search").setLevel(logging.DEBUG)
    listener = _listen(settings.host, port)
    # Access logs are the application's own: uvicorn's show query strings.
    config = uvicorn.Config(create_app(engine, settings), **server_options(settings))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if not quiet:
        info = engine.reader.info
        where = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"{info.image.rows:,} images, {info.text.rows:,} captions of {index}")
        say(f"http://{where}:{listener.getsockname()[1]}/  (API: /docs, Ctrl-C ends it)")
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound before anything else is started, so that a port in use is told at once."""
    import socket

    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # who comes before the server has started waits
    except OSError as error:
        raise BrivlSearchError(
            f"--host {host} --port {port}: {error.strerror}: choose another, or end what listens there"
        ) from None
    return listener
