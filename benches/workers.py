#!/usr/bin/env python3
"""How much faster N workers are than one, on an S3 server behind a proxy that adds a round trip to each request:

    benches/workers.py VERGER WEED [--workers 1,4] [--dirs 1500] [--files 100] [--milliseconds 30] [--parallel 2]
                       [--shard-bytes 1MiB] [--nats NATS_SERVER] [--keep DIR] [--runs 1] [--orphans 0]

One coordinator without workers of its own, and so many `verger worker` beside it, each with `--concurrency 1`; a full cycle without margins on a fresh
copy of the same repository for each. `--parallel` is the requests that a worker has in flight: small, it stands for a link of its own, which
workers on one machine do not have. Without `--nats` workers ask for shards, each two seconds where there was none. With 0
workers in the list: one worker without an exchange, whose cycle is not cut, for what sharding costs. `--orphans` are packs that no index
names, for what deleting takes: it is not cut, and goes by `--parallel`. Times of stages are the ledger's. Needs a real `kopia` on PATH (it makes and copies the repository) and SeaweedFS' `weed`."""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

from fleet import Fleet, must, start_nats
from peer import make_repository
from side_by_side_s3 import KEY, MAKE_BUCKET, SECRET, Proxy, fill, start_server

STAGES = ("scan", "rewrite", "delete", "delete-rewritten")


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def stages(fleet, cycle):
    """Seconds of each stage of a cycle, and of the whole of it."""
    begun, took, ends = {}, {}, []
    for line in fleet.verger("events", "--cycle", str(cycle), "--json").splitlines():
        event = json.loads(line)
        ends.append(seconds(event["at"]))
        if event["kind"] == "stage_opened":
            begun[event["stage"]] = seconds(event["at"])
        elif event["kind"] == "stage_closed" and event["stage"] in begun:
            took[event["stage"]] = seconds(event["at"]) - begun[event["stage"]]
    return dict(took, cycle=ends[-1] - ends[0])


def add_orphans(repository, count):
    """Packs that no index names, in the folders where Kopia looks for them."""
    for number in range(count):
        name = hashlib.md5(str(number).encode()).hexdigest()
        folder = f"{repository}/p/{name[:3]}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/{name[3:]}.f", "wb") as out:
            out.write(name.encode() * 32)


def run(arguments, count, port, prefix, folder):
    """One full cycle by so many workers; seconds of its stages."""
    proxy = Proxy(port, arguments.milliseconds)
    home = tempfile.mkdtemp(dir=folder)
    store = dict(AWS_S3_ENDPOINT=f"http://127.0.0.1:{proxy.port}", AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID=KEY,
                 AWS_SECRET_ACCESS_KEY=SECRET, BENCH_PASSWORD="bench")
    nats = None
    if arguments.nats:
        nats, store["VERGER_NATS"] = start_nats(arguments.nats, home)
    fleet = Fleet(arguments.verger, home, [1], {1: 0}, **store)
    workers = []
    try:
        fleet.leader()
        token = fleet.verger("token", "create", "bench", "--scope", "work", "--all-tenants").strip()
        with open(f"{home}/token", "w", encoding="utf-8") as out:
            out.write(token)
        fleet.verger("repo", "add", "bench", f"s3://bench/{prefix}", "--password-env", "BENCH_PASSWORD", "--act-as", "owner@bench",
                     "--exclusive")
        for number in range(max(count, 1)):
            command = [arguments.verger, "worker", "--token-file", f"{home}/token", "--name", f"w{number}", "--concurrency", "1", "--parallel",
                       str(arguments.parallel), "--cache-dir", f"{home}/cache{number}"]
            if count:
                command += ["--exchange", f"s3://bench/exchange-{prefix}", "--shard-bytes", arguments.shard_bytes]
            log = open(f"{home}/worker{number}", "w", encoding="utf-8")
            workers.append(subprocess.Popen(command, env=fleet.environment, stdout=log, stderr=log))
        report = json.loads(fleet.verger("cycle", "start", "bench", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100",
                                         "--wait", "--json"))
        assert report["outcome"] == "done", report
        return stages(fleet, report["cycle"])
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        fleet.stop()
        if nats:
            nats.kill()
        proxy.counts()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verger")
    parser.add_argument("weed")
    parser.add_argument("--workers", default="0,1,4")
    parser.add_argument("--dirs", type=int, default=1500)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--dead", type=float, help="the fraction of all contents that is dead, spread over all packs")
    parser.add_argument("--sources", type=int, help="a snapshot each of so many trees, every third deleted: many short packs")
    parser.add_argument("--orphans", type=int, default=0, help="so many packs that nothing points to, of a kilobyte each")
    parser.add_argument("--milliseconds", type=int, default=30)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--shard-bytes", default="1MiB")
    parser.add_argument("--nats", help="a program `nats-server`: workers get hints from it")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--keep", help="make the repository here, or use the one that is there")
    arguments = parser.parse_args()
    arguments.verger = os.path.abspath(arguments.verger)
    if not shutil.which("kopia"):
        sys.exit("no kopia on PATH: there is nothing to make a repository with")
    folder = tempfile.mkdtemp(prefix="verger-bench-workers-")
    kept = arguments.keep or folder
    os.makedirs(kept, exist_ok=True)
    if not os.path.exists(f"{kept}/repository"):
        make_repository(kept, arguments.dirs, arguments.files, arguments.dead, arguments.sources)
    add_orphans(f"{kept}/repository", arguments.orphans)
    server, port = start_server(os.path.abspath(arguments.weed), folder)
    try:
        must([sys.executable, "-c", MAKE_BUCKET, port, KEY, SECRET])
        found = {}
        for number in range(arguments.runs):
            for count in map(int, arguments.workers.split(",")):
                prefix = f"run{number}-{count}/"
                fill(f"{kept}/repository", folder, port, prefix)
                took = run(arguments, count, port, prefix, folder)
                found.setdefault(count, []).append(took)
                print(count, "workers", {name: round(value, 2) for name, value in took.items()}, flush=True)
        report(found)
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def report(found):
    """Medians, and ratios to one worker."""
    def median(count, name):
        return statistics.median(took.get(name, 0) for took in found[count])

    for name in (*STAGES, "cycle"):
        row = [f"{count}: {median(count, name):.2f} s" for count in found]
        if 1 in found and median(1, name):
            row += [f"1/{count}: {median(1, name) / median(count, name):.2f}" for count in found if count != 1 and median(count, name)]
        print(name, ", ".join(row))


if __name__ == "__main__":
    main()
