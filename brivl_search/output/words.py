"""What the Python API calls an argument, the command line calls an option: messages in its words.

Errors name an argument in backquotes, as it is called in Python (see `errors`): "`min_score` 2: ...". On the command
line the same message reads "--min-score 2: ...". What stands in backquotes and not in the tables stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SAME = (  # --min-score is min_score
    "after alike before captioner captions count dataset dataset_format dedupe device encoder encoding exact "
    "cluster exclude force generate_captions glob gpus_per_worker host image images include_hidden index index_type "
    "keep_regions labels max_megapixels memory min_match min_score min_size minus minus_image nprobe out plus "
    "precision predictions queries rate read_only recall recall_at records rerank rerank_top rerank_with runtime "
    "sample split token truncate_dim under upload_dir vectors where"
)
OPTIONS = {name: "--" + name.replace("_", "-") for name in _SAME.split()} | {
    "allowed_hosts": "--allow-host",
    "trusted_proxies": "--trusted-proxy",
    "k": "--top-k",
    "keys": "--key",
    "templates": "--template",
}
COMMANDS = {
    "build_index": "brivl-search build-index FOLDER",
    "remove": "brivl-search remove",
    "repair": "brivl-search verify --repair",
    "sources": "brivl-search sources",
}

_NAMED = re.compile(r"(?<![\w/.])`([a-z_]+)`(?![\w/.])")  # and not a part of a path


def as_options(message: str, details: Mapping[str, Any] | None = None) -> str:
    """A message of the library as the command line says it: `min_score` becomes --min-score, `repair` a command.

    Args:
        message: one line or several.
        details: of the error; a command is shown with the `index` that they name.
    """
    index = (details or {}).get("index")

    def said(found: re.Match[str]) -> str:
        name = found[1]
        if name in COMMANDS:
            return COMMANDS[name] + (f" --index {index}" if index else "")
        return OPTIONS.get(name, found[0])

    return _NAMED.sub(said, message)
