"""What the Python API calls an argument, the command line calls an option: messages in its words.

Errors name an argument in backquotes, as it is called in Python (see `errors`): "`min_score` 2: ...". On the command
line the same message reads "--min-score 2: ...". What stands in backquotes and not in the table stays as it is.
"""

from __future__ import annotations

import re

_SAME = (  # --min-score is min_score
    "after alike before captions dataset dataset_format dedupe device encoder exact glob host image images "
    "include_hidden index index_type key labels max_megapixels memory min_match min_score min_size minus minus_image "
    "nprobe out plus predictions queries rate read_only recall recall_at records rerank sample split text token "
    "truncate_dim under upload_dir vectors where"
)
_OTHERS = {
    "allowed_hosts": "--allow-host",
    "batch_size": "--batch-size",
    "k": "--top-k",
    "keys": "--key",
    "repair": "brivl-search verify --repair",
    "templates": "--template",
}
OPTIONS = {name: "--" + name.replace("_", "-") for name in _SAME.split()} | _OTHERS

_NAMED = re.compile(r"(?<![\w/.])`([a-z_]+)`(?![\w/.])")  # and not a part of a path


def as_options(message: str) -> str:
    """A message of the library as the command line says it: `min_score` becomes --min-score."""
    return _NAMED.sub(lambda found: OPTIONS.get(found[1], found[0]), message)
