#!/usr/bin/env python3
"""Time, memory and requests of both programs against the number of contents, as JSON and as a plot.

    benches/scale.py VERGER WEED [--sizes 30000,100000,...] [--keep DIR] [--milliseconds 1] [--runs 3] [--out docs/performance]

Each size is the repository of side_by_side.py. Time and memory are of local files, requests of an S3 server behind the proxy. With --keep
repositories are made there once, and sizes that the data in --out already have are left as they are, so that it can be stopped and
continued; the SVG is drawn anew from all data each time."""

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile

from peer import make_repository
from plot import draw
from side_by_side import compare
from side_by_side_s3 import run_both

SIZES = "30000,100000,300000,1000000,3000000"
FILES = 100


def one(size, arguments, kept):
    """Medians of one size: {figure: {program: value}}."""
    folder = os.path.join(kept, str(size))
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(f"{folder}/repository"):
        make_repository(folder, size // FILES, FILES, None)
    local = compare(arguments.verger, f"{folder}/repository", folder, arguments.runs)
    with tempfile.TemporaryDirectory(prefix="verger-bench-s3-") as place:
        remote = run_both(arguments.verger, arguments.weed, f"{folder}/repository", arguments.milliseconds, place)
    row = {name: {p: local[name][p] for p in ("verger", "kopia")} for name in ("wall", "cpu", "memory")}
    row["requests"] = {name: remote[name]["requests"] for name in remote}
    counted = local["contents"]
    return {"files": size, "contents": sum(counted[k] for k in counted if k in ("unusedContentCount", "inUseContentCount")), **row}


def plot(rows, path):
    def series(figure):
        return {p: [(row["files"], row[figure][p]) for row in rows] for p in ("verger", "kopia")}

    panels = [("Full cycle, wall time (local files)", " s", series("wall")), ("Peak memory (local files)", " MB", series("memory")),
              ("Requests (S3)", "", series("requests"))]
    title = "One full maintenance cycle without margins, cold caches, 2 cores; files of 200 to 800 bytes, about as many contents"
    with open(path, "w", encoding="utf-8") as out:
        out.write(draw(title, panels))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verger")
    parser.add_argument("weed")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--keep")
    parser.add_argument("--milliseconds", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "performance"))
    arguments = parser.parse_args()
    if not shutil.which("kopia"):
        sys.exit("no kopia on PATH: there is nothing to compare with")
    os.makedirs(arguments.out, exist_ok=True)
    data = os.path.join(arguments.out, "scale.json")
    rows = []
    if os.path.exists(data):
        with open(data, encoding="utf-8") as source:
            rows = json.load(source)["rows"]
    kept = arguments.keep or tempfile.mkdtemp(prefix="verger-bench-")
    try:
        for size in (int(s) for s in arguments.sizes.split(",")):
            if any(row["files"] == size for row in rows):
                continue
            rows.append(one(size, arguments, kept))
            rows.sort(key=lambda row: row["files"])
            machine = {"cores": os.cpu_count(), "system": platform.system(), "day": datetime.date.today().isoformat()}
            with open(data, "w", encoding="utf-8") as out:
                json.dump({"machine": machine, "rows": rows}, out, indent=1)
                out.write("\n")
            plot(rows, os.path.join(arguments.out, "scale.svg"))
        plot(rows, os.path.join(arguments.out, "scale.svg"))
    finally:
        if not arguments.keep:
            shutil.rmtree(kept)


if __name__ == "__main__":
    main()
