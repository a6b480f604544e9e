#!/usr/bin/env python3
"""How long the shards of workers that are killed with -9 wait until they are offered again, and until somebody else has them:

    benches/reoffer.py VERGER WEED [--nats NATS_SERVER] [--samples 150] [--victims 2] [--places 24] [--sources 150] [--keep DIR] [--out FILE]

Three coordinators, a worker that leads (and is spared), and workers with many places each, on an S3 server that they reach through proxies which
make each request so slow that a shard lasts; a full cycle, a shard for each pack. Again and again: wait until the victims hold about as many claims as they have places,
and for a random while, kill all of them, begin new ones. Times are the ledger's, from the kill: `job_lost` and `job_offered` (or `shard_split`, if it was lost
three times) of each claim that a victim held, and the next `job_claimed`. These are matters of timers, so an unoptimised build does. Needs a real
`kopia` on PATH (it makes and copies the repository) and SeaweedFS' `weed`; without a NATS server workers ask every two seconds."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from fleet import Fleet, must, start_nats
from peer import make_repository
from side_by_side_s3 import KEY, MAKE_BUCKET, SECRET, Proxy, fill, start_server
from workers import seconds

# The lead does shards as well, and is to leave some to others.
LEAD_MILLISECONDS = 400
FULL = ("cycle", "start", "bench", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--json")


class Hands:
    """Workers in processes of their own; no name is used twice."""

    def __init__(self, arguments, fleet, folder, ports):
        self.arguments, self.folder, self.number, self.running = arguments, folder, 0, {}
        self.environment, self.ports = fleet.environment, ports

    def begin(self, kind, places):
        self.number += 1
        name = f"{kind}{self.number}"
        command = [self.arguments.verger, "worker", "--token-file", f"{self.folder}/token", "--name", name, "--concurrency", str(places),
                   "--memory-limit", f"{100 * places}MiB", "--cache-dir", f"{self.folder}/cache-{name}", "--exchange", "s3://bench/exchange/",
                   "--shard-bytes", "1KiB"]
        log = open(f"{self.folder}/log-{name}", "w", encoding="utf-8")
        environment = dict(self.environment, AWS_S3_ENDPOINT=f"http://127.0.0.1:{self.ports[kind]}")
        self.running[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return name

    def kill(self, names):
        """When, and all at once."""
        for name in names:
            self.running[name].kill()
        at = time.time()
        for name in names:
            self.running.pop(name).wait()
            shutil.rmtree(f"{self.folder}/cache-{name}", ignore_errors=True)
        return at

    def stop(self):
        self.kill(list(self.running))


def events(fleet):
    return [json.loads(line) for line in fleet.verger("events", "--repo", "bench", "--json").splitlines()]


def cycle(fleet):
    """A cycle that is open: one that goes on, or a new one."""
    def cycles():
        return json.loads(fleet.verger("cycle", "list", "bench", "--json"))

    known = cycles()
    if not any(one["phase"] != "ended" for one in known):
        fleet.verger(*FULL, "--key", f"key-{len(known)}")
        while len(cycles()) == len(known):
            time.sleep(0.5)
    return cycles()[0]["id"]


def held(fleet, number, names):
    """Claims of these workers."""
    jobs = json.loads(fleet.verger("cycle", "show", str(number), "--json")).get("jobList", [])
    return sum(job["state"] == "claimed" and job["worker"].split("/")[0] in names for job in jobs)


def samples(told, kills):
    """Of each claim that was held at a kill: seconds until it was lost, offered and claimed again. None: its stage ended before."""
    dead = {name: at for at, names in kills for name in names}
    owner, found, waiting = {}, [], {}
    for event in told:
        at, kind = seconds(event["at"]), event["kind"]
        ticket = event.get("ticket", {})
        job = ticket.get("job", event.get("job"))
        if kind == "job_claimed":
            name = ticket["worker"].split("/")[0]
            owner[job] = name
            if job in waiting:
                waiting.pop(job)["claimed"] = at
        elif kind in ("job_completed", "job_failed"):
            owner.pop(job, None)
        elif kind == "job_lost":
            name = owner.pop(job, None)
            if name in dead:
                found.append({"killed": dead[name], "lost": at})
                waiting[job] = found[-1]
        elif kind == "job_offered" and job in waiting:
            waiting[job].setdefault("offered", at)
        elif kind == "shard_split" and job in waiting:
            one = waiting.pop(job)
            one.setdefault("offered", at)
            waiting[event["into"][0]] = one
        elif kind in ("stage_opened", "cycle_closed"):
            owner.clear()
            waiting.clear()
    return found


def share(values, percent):
    values = sorted(values)
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def report(found):
    figures = {"samples": len(found)}
    for what in ("offered", "claimed"):
        took = [one[what] - one["killed"] for one in found if what in one]
        if took:
            figures[what] = {"count": len(took), "median": round(share(took, 50), 1), "p99": round(share(took, 99), 1),
                             "longest": round(max(took), 1)}
    return figures


def rounds(arguments, fleet, hands):
    """Kills until there are samples enough."""
    kills, count = [], 0
    victims = [hands.begin("victim", arguments.places) for _ in range(arguments.victims)]
    began = time.monotonic()
    while count < arguments.samples and time.monotonic() - began < arguments.minutes * 60:
        number = cycle(fleet)
        holding = held(fleet, number, victims)
        if holding < arguments.places * arguments.victims // 2:
            time.sleep(0.5)
            continue
        time.sleep(random.uniform(0, 6))
        holding = held(fleet, number, victims)
        kills.append((hands.kill(victims), victims))
        print(f"killed with {holding} claims", flush=True)
        victims = [hands.begin("victim", arguments.places) for _ in range(arguments.victims)]
        # Until all are lost: the next ones claim meanwhile.
        time.sleep(40)
        count = len(samples(events(fleet), kills))
        print(count, "samples", flush=True)
    return kills


def run(arguments, s3, folder):
    proxies = {"lead": Proxy(s3, LEAD_MILLISECONDS), "victim": Proxy(s3, arguments.milliseconds)}
    store = dict(AWS_S3_ENDPOINT=f"http://127.0.0.1:{s3}", AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID=KEY,
                 AWS_SECRET_ACCESS_KEY=SECRET, BENCH_PASSWORD="bench")
    nats = None
    if arguments.nats:
        nats, store["VERGER_NATS"] = start_nats(arguments.nats, folder)
        time.sleep(1)
    fleet = Fleet(arguments.verger, folder, [1, 2, 3], {1: 0, 2: 0, 3: 0}, **store)
    hands = Hands(arguments, fleet, folder, {kind: proxy.port for kind, proxy in proxies.items()})
    try:
        fleet.leader()
        with open(f"{folder}/token", "w", encoding="utf-8") as out:
            out.write(fleet.verger("token", "create", "bench", "--scope", "work", "--all-tenants").strip())
        fleet.verger("repo", "add", "bench", "s3://bench/repository/", "--password-env", "BENCH_PASSWORD", "--act-as", "owner@bench",
                     "--exclusive")
        fleet.verger("repo", "suspend", "bench")
        hands.begin("lead", 1)
        cycle(fleet)
        while not any(event["kind"] == "stage_opened" for event in events(fleet)):
            time.sleep(1)
        kills = rounds(arguments, fleet, hands)
        return samples(events(fleet), kills)
    finally:
        hands.stop()
        fleet.stop()
        if nats:
            nats.kill()
        for proxy in proxies.values():
            proxy.counts()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verger")
    parser.add_argument("weed")
    parser.add_argument("--nats", help="a nats-server")
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--minutes", type=float, default=15, help="no more kills after that")
    parser.add_argument("--victims", type=int, default=2)
    parser.add_argument("--places", type=int, default=24)
    parser.add_argument("--sources", type=int, default=150, help="snapshots, each of which leaves a pack of directories")
    parser.add_argument("--milliseconds", type=int, default=2500)
    parser.add_argument("--keep", help="make the repository here, or use the one that is there")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    arguments.verger = os.path.abspath(arguments.verger)
    if not shutil.which("kopia"):
        sys.exit("no kopia on PATH: there is nothing to make a repository with")
    folder = tempfile.mkdtemp(prefix="verger-bench-reoffer-")
    kept = arguments.keep or folder
    os.makedirs(kept, exist_ok=True)
    if not os.path.exists(f"{kept}/repository"):
        make_repository(kept, 4, 10, None, arguments.sources)
    server, s3 = start_server(os.path.abspath(arguments.weed), folder)
    try:
        must([sys.executable, "-c", MAKE_BUCKET, s3, KEY, SECRET])
        fill(f"{kept}/repository", folder, s3, "repository/")
        figures = report(run(arguments, s3, folder))
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures))
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as out:
            out.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
