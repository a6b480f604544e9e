#!/usr/bin/env python3
"""How long three coordinators take no commands after a kill -9 of the leader.

    benches/failover.py VERGER [--kills 100] [--out FILE]

Three processes on loopback with mutual TLS (certificates by `openssl`). Each time: kill the leader, and ask the two others for a
command again and again until one is acknowledged; then start the killed one again and wait until it has caught up. Prints the median,
the 99th percentile and the longest, in seconds."""

import argparse
import json
import os
import pathlib
import tarfile
import tempfile
import time

from fleet import Fleet

ROOT = pathlib.Path(__file__).resolve().parent.parent
NODES = [1, 2, 3]


class Failing(Fleet):
    def fail_over(self):
        leader = self.leader()
        rest = [node for node in NODES if node != leader]
        self.processes[leader].kill()
        began = time.monotonic()
        self.processes[leader].wait()
        turn = 0
        while True:
            status, _ = self.ask(rest[turn % 2], "PATCH", "/v1/repositories/photos", {"suspended": bool(turn % 4 < 2)})
            if status == 200:
                break
            turn += 1
            time.sleep(0.01)
        took = time.monotonic() - began
        self.start(leader)
        return took


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--out")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ROOT / "tests/golden/default.tar.gz") as archive:
            archive.extractall(f"{folder}/golden", filter="data")
        fleet = Failing(os.path.abspath(options.program), folder, NODES, PHOTOS_PASSWORD="golden")
        try:
            fleet.leader()
            fleet.verger("repo", "add", "photos", f"filesystem://{folder}/golden/default/repo", "--password-env",
                         "PHOTOS_PASSWORD", "--observe")
            took = sorted(fleet.fail_over() for _ in range(options.kills))
        finally:
            fleet.stop()
    figures = {"kills": len(took), "median": took[len(took) // 2], "p99": took[max(0, -(-len(took) * 99 // 100) - 1)],
               "longest": took[-1]}
    print(json.dumps(figures))
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
