"""From the shell to the first answer: `brivl-search query` against importing torch alone, in turns, caches warm.

    python benchmarks/cold_start.py                     # 2,000 made-up rows with the bundled encoder
    python benchmarks/cold_start.py --index DIR --json  # an index of your own

Bars: the query takes at most 1.3 of the time of `python -c "import torch"`, and at most 0.7 s. A text query runs its
text tower in NumPy and imports neither torch nor transformers; without that it could only be slower than either.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from processes import as_installed  # noqa: E402

RATIO, SECONDS = 1.3, 0.7


def make_index(directory: Path, rows: int = 2000) -> None:
    """Rows of random unit vectors under the bundled encoder's name: only the time to answer counts here."""
    from brivl_search.encoders import load_encoder
    from brivl_search.index import IndexWriter, Item

    encoder = load_encoder()
    vectors = np.random.default_rng(0).standard_normal((rows, encoder.dim)).astype(np.float32)
    names = [f"{n:064x}" for n in range(len(vectors))]
    with IndexWriter(directory, encoder_name=encoder.name, fingerprint=encoder.fingerprint, dim=encoder.dim) as writer:
        writer.stage_vectors("image", names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        for name in names:
            writer.put("image", Item(f"/photos/{name}.jpg", name, record={"path": f"/photos/{name}.jpg"}))
        writer.commit()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        index = args.index or Path(temporary) / "index"
        if args.index is None:
            make_index(index)
        query = [sys.executable, "-m", "brivl_search", "query", "一只在草地上的狗", "--index", str(index)]
        commands = {
            "query": query,
            "import torch": [sys.executable, "-c", "import torch"],
            "import numpy": [sys.executable, "-c", "import numpy"],
        }
        environment = as_installed()
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(args.rounds + 1):  # the first one only warms the caches
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = middle["query"] / middle["import torch"]
    met = ratio <= RATIO and middle["query"] <= SECONDS
    if args.json:
        print(
            json.dumps({"seconds": seconds, "median": middle, "ratio": ratio, "met": met, "load": os.getloadavg()[0]})
        )
        return 0 if met else 1
    for name, values in seconds.items():
        print(f"{name:14} {middle[name]:.2f} s  ({min(values):.2f}–{max(values):.2f})")
    print(f"query / import torch: {ratio:.2f} (bar {RATIO}); query at most {SECONDS} s: {'met' if met else 'not met'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
