"""Every error a user can meet, each with the exit code the CLI ends with.

    BrivlSearchError            1   something failed
    ├── UsageError              2   an argument is wrong (missing folder, unknown model, empty query, k = 0, ...)
    ├── CorpusError             1   the folder or its caption files cannot be used
    │   └── ImageError          1   one image cannot be read; `reason` is a short, countable name
    ├── EncoderError            1   a checkpoint is damaged or of another kind, or cannot be downloaded
    ├── DependencyError         1   an optional package is needed and not installed
    ├── IndexMissingError       3   there is no index where one was asked for
    ├── IndexIncompatibleError  3   the index is of another encoder, format version, or damaged
    ├── IndexBusyError          1   another process is writing the index
    └── SkippedItemsError       4   items were skipped where none may be

A message is one line: it names the thing and says how to mend it. 0 is success, 130 an interrupt (Ctrl-C).

Messages speak to users of the Python API, of HTTP and of the command line alike. So a message names an argument as it
is called in Python, in backquotes: `min_score`, `where`, `encoder`. Fields of HTTP requests have the same names. It
never names an option of the command line: the CLI puts its own (--min-score) in the place of the backquotes when it
prints a message, see `output.words`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any


def install_hint(extra: str) -> str:
    """The command that adds an optional part, as this copy of brivl-search was installed.

    Args:
        extra: a name of pyproject.toml's optional dependencies, such as "serve".
    """
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        origin = json.loads(distribution("brivl-search").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError, OSError):
        origin = {}
    folder = unquote(urlsplit(origin.get("url", "")).path)
    if "dir_info" in origin and os.path.isfile(os.path.join(folder, "pyproject.toml")):
        editable = "-e " if origin["dir_info"].get("editable") else ""
        here = "." if os.path.abspath(os.curdir) == os.path.abspath(folder) else folder
        return f"pip install {editable}'{here}[{extra}]'"
    return f"pip install 'brivl-search[{extra}]'"


class BrivlSearchError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with.

    Args:
        message: one line.
        code: a stable name of what is wrong, for programs; "" where there is none. `server.protocol.codes` lists them.
        details: what the message speaks of, by name: numbers, strings and lists of them.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, code: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = dict(details or {})


class UsageError(BrivlSearchError):
    """An argument is wrong. Nothing was done."""

    exit_code = 2


class CorpusError(BrivlSearchError):
    """A folder, a dataset or a caption file cannot be used. Nothing was changed."""


class ImageError(CorpusError):
    """One image cannot be read.

    Args:
        reason: short and countable, e.g. "truncated", "not an image", "too large".
        detail: what exactly was met, for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(
            f"{reason}: {detail}" if detail else reason, code="picture", details={"reason": reason, "detail": detail}
        )
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return (type(self), (self.reason, self.detail))  # crosses process boundaries


class EncoderError(BrivlSearchError):
    """A checkpoint is damaged, not whole, or of another kind, or the hub that has it cannot be reached."""


class DependencyError(BrivlSearchError):
    """An optional package is needed and not installed. The message has the command that installs it."""


class IndexMissingError(BrivlSearchError):
    """There is no index where one was asked for, or its first build has not finished."""

    exit_code = 3


class IndexIncompatibleError(BrivlSearchError):
    """An index is of another encoder or format version, or damaged."""

    exit_code = 3


class IndexBusyError(BrivlSearchError):
    """Another process is writing the index. Readers are not affected."""


class SkippedItemsError(BrivlSearchError):
    """Items were skipped where none may be (`--strict`). What could be used was used."""

    exit_code = 4


class NothingFitsWarning(UserWarning):
    """A filter lets no row of the index through; the message says which part of it, beside what there is."""


class TowerWarning(UserWarning):
    """A tower is exported now, or cannot be: torch computes it."""


class UnreadPictureWarning(UserWarning):
    """A picture could not be read; the message names it.

    After a matcher its hit keeps its place; `write_captions` leaves it out.
    """


class UnknownWordsWarning(UserWarning):
    """The encoder does not know words of a query; `words` names them. If it knows none, hits have no `match`."""

    def __init__(self, message: str, words: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.words = tuple(words)


def system_error(error: BaseException, directory: str | os.PathLike[str] | None = None) -> BrivlSearchError | None:
    """A full disk, a folder that cannot be written, no memory left and the like, as one line; None for anything else.

    Args:
        error: an OSError, LMDB's, MemoryError, or what safetensors and torch say when they write.
        directory: where it happened, if the error does not say.
    """
    if isinstance(error, MemoryError):
        return BrivlSearchError(f"not enough memory ({str(error).rstrip('.') or 'out of memory'}): {_LESS}")
    code = getattr(error, "errno", None)
    text = str(error)
    if type(error).__module__.startswith("lmdb"):  # its own classes, known here by what they say
        code = next((c for c in _ADVICE if os.strerror(c).lower() in text.lower()), None)
        if type(error).__name__ == "DiskError":
            code = errno.ENOSPC
    elif type(error).__module__.startswith("safetensors") and (found := re.search(r"\(os error (\d+)\)", text)):
        code = int(found[1])
    elif isinstance(error, RuntimeError) and "inline_container.cc" in text and "Reader" not in text:
        code = errno.EIO  # so torch says that a file which it writes was cut short
    elif not isinstance(error, OSError):
        return None
    name = getattr(error, "filename", None)
    if name is None and os.sep in str(what := getattr(error, "what", "")):  # lmdb names the file it could not open
        name = what
    if name is None:
        name = directory
    place = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if code == errno.EIO:  # LMDB says so of every write that was cut short, and torch means it
        code = _behind(place)
    where = "" if place is None else f" ({os.fsencode(place).decode('utf-8', 'backslashreplace')})"
    if code in _ADVICE:
        full = code in (errno.ENOSPC, errno.EDQUOT)
        return BrivlSearchError(f"{os.strerror(code)}{where}: {_ADVICE[code]}", code="disk_full" if full else "")
    return None


def not_written(named: str, error: OSError, what: str = "file") -> BrivlSearchError | OSError:
    """What is said of a new file that cannot be made where the user wants it; the error itself where the name is good.

    Args:
        named: the option and the path, such as "`out` a/b.jsonl".
        error: of the system.
        what: "file" or "folder".
    """
    where = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
    if not (isinstance(error, where) or error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)):
        return error
    return UsageError(f"{named}: {error.strerror}: name a {what} in a folder that you can write to")


def _behind(place: str | None) -> int:
    """What cut a write short: a full disk, a limit on the size of files, or (EIO) nobody knows."""
    while place and not os.path.exists(place):
        place = os.path.dirname(place)
    if place and hasattr(os, "statvfs"):
        try:
            facts = os.statvfs(place)
        except OSError:
            return errno.EIO
        if facts.f_bavail * facts.f_frsize < min(_NARROW, facts.f_blocks * facts.f_frsize // 4):
            return errno.ENOSPC
    try:
        import resource
    except ImportError:  # Windows
        return errno.EIO
    limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
    return errno.EFBIG if limited else errno.EIO


_NARROW = 64 << 20  # bytes free on a disk that is as good as full
_LESS = "ask for less at once (fewer hits, smaller batches), or give the process more"
_KEPT = "what was committed is untouched and what was embedded is kept, the same command goes on from there"
_ADVICE = {
    errno.ENOSPC: f"free some space and run the same command again; {_KEPT}",
    errno.EDQUOT: f"free some space and run the same command again; {_KEPT}",
    errno.EFBIG: f"raise the limit on file sizes (ulimit -f) and run the same command again; {_KEPT}",
    errno.EROFS: "give a folder on a file system that can be written",
    errno.EACCES: "give a folder that you may write to, or change its permissions",
    errno.EPERM: "give a folder that you may write to, or change its permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or compact the index",
    errno.ENOMEM: "give the process more memory or address space (ulimit -v)",
    errno.EIO: f"the disk is full, its quota is used up, or it fails: free some space and run the same command again; "
    f"{_KEPT}",
}
