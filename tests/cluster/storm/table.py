"""`table.py RESULTS.jsonl PAGE.md`: the results of `make test-chaos` as the table of docs/reliability.md."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results of make test-chaos: begin -->", "<!-- results of make test-chaos: end -->"
HEAD = "| fault | seed | epoch hit | recovered by | seconds | equal bit for bit |\n|---|---|---|---|---|---|"


def table(hits: list[dict[str, Any]]) -> str:
    """A line per fault that hit, by name, and what they say together."""
    rows = sorted(hits, key=lambda hit: (hit["fault"], hit["seed"]))
    lines = [
        f"| {hit['fault']} | {hit['seed']} | {hit['epoch']} | {hit['recovery']} | {hit['seconds']:.0f} | "
        f"{'yes' if hit['equal'] else '**no**'} |"
        for hit in rows
    ]
    by_itself = sum(hit["recovery"] == "itself" for hit in hits)
    seconds = statistics.median(hit["seconds"] for hit in hits)
    summary = (
        f"{len(hits)} faults of {len({hit['fault'] for hit in hits})} kinds: {by_itself} recovered by "
        f"themselves, {len(hits) - by_itself} by the same command; {seconds:.0f} s in the median; "
        f"{sum(hit['equal'] for hit in hits)} ended equal bit for bit."
    )
    return "\n".join([HEAD, *lines, "", summary])


def main(results: Path, page: Path) -> None:
    """Replace what stands between the marks of the page."""
    hits = [json.loads(line) for line in results.read_text().splitlines()]
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(hits)}\n\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
