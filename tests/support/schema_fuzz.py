"""The OpenAPI document against the server, by schemathesis: what it generates must never be answered with a 5xx, and
every answer must have a status, a content type and a shape that the document names.

    python -m tests.support.schema_fuzz --examples 500   # minutes; test_openapi.py does the same with a few
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from brivl_search.server import Settings, create_app
from tests.support.serving import open_engine, running, write_site

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def fuzz(folder: Path, examples: int, *, seed: bool = False) -> Counter[str]:
    """Asks every route so often, with what fits the document. Returns the number of answers of each status.

    Raises:
        ExceptionGroup: an answer is not what the document says.
    """
    index = write_site(folder, 12)
    app = create_app(open_engine(index), Settings(upload_dir=folder / "uploads", warm=False, decoders=1))
    document = schemathesis.openapi.from_dict(app.openapi())
    statuses: Counter[str] = Counter()
    troubles: list[Exception] = []
    with running(app) as address:
        keys = requests.get(f"{address}/v1/map", timeout=20).json()["keys"]
        for result in document.get_all_operations():
            operation: Any = result.ok()

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=seed,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(), known=st.sampled_from([None, *keys]))
            def ask(case: Any, known: str | None) -> None:
                if known is not None and "key" in case.path_parameters:
                    case.path_parameters["key"] = known  # by chance alone none would ever be found
                response = case.call(base_url=address)
                statuses[f"{case.method} {case.path} {response.status_code}"] += 1
                case.validate_response(response, checks=CHECKS)

            try:
                ask()
            except Exception as error:
                error.add_note(f"{operation.method} {operation.path}")
                troubles.append(error)
    if troubles:
        raise ExceptionGroup(f"{len(troubles)} routes answer what the document does not say", troubles)
    return statuses


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--examples", type=int, default=500, help="for each route")
    with tempfile.TemporaryDirectory() as folder:
        for name, count in sorted(fuzz(Path(folder), options.parse_args().examples).items()):
            print(f"{count:6,}  {name}")


if __name__ == "__main__":
    main()
