#!/usr/bin/env python3
"""What the coordinator costs: cycles through `verger up` beside `verger maintain`, durable commands a second, and its CPU with many
repositories at rest and at work.

    benches/coordinator.py VERGER [--runs 9] [--seconds 10] [--repositories 200] [--hour 3600] [--only PART …] [--out FILE]

overhead      a full cycle of copies of one golden repository, by `verger maintain` and by `verger cycle start --wait`, taking turns:
              the difference of the medians
commands      registrations changed over the API by 16 connections: each is a command that is on disk before it is answered
repositories  so many copies of a golden repository in one `verger up`, a quick cycle of each: CPU time of the process a cycle, and
              while nothing is due; from both, the share of a core that 1,000 repositories with hourly quick cycles take, work included
three         as `commands`, on three coordinators with mutual TLS between them: all connections at the leader, then spread over the
              three, of which two hand on to it
alone         what a coordinator alone takes: two of them with mutual TLS; the one that leads has no workers, the other does all cycles
              (of the same copies, one at a time in each place). CPU of the leader: a cycle (over what it takes at rest meanwhile), at
              rest with a quarter of the repositories and with all of them. From these, a straight line each, the share of a core of
              1,000 repositories with hourly quick cycles, **without the work**; the leader's part of replication to one other is in it
hour          the same two, and nothing drawn through anything: so many repositories, each with a quick cycle every hour by its schedule,
              for `--hour` seconds. CPU of the leader in that time, and how many cycles there were. Only when it is named

Timings of a shared machine are noise: medians and ranges are given."""

import argparse
import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

from fleet import Fleet, cpu
from peer import measure, must

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "golden", "default.tar.gz")
CYCLE = ["--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100"]
OWNER = "owner@golden"


class Up:
    """`verger up` with a home of its own."""

    def __init__(self, program, folder):
        self.program, self.home = program, tempfile.mkdtemp(dir=folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = dict(os.environ, HOME=self.home, XDG_CONFIG_HOME=f"{self.home}/config", GOLDEN="golden",
                                VERGER_ADDR=f"http://127.0.0.1:{self.port}")
        log = open(f"{self.home}/log", "w", encoding="utf-8")
        self.process = subprocess.Popen([program, "up", "--data-dir", f"{self.home}/data", "--listen", f"127.0.0.1:{self.port}"],
                                        env=self.environment, stdout=log, stderr=log)
        self.command("repo", "list")

    def command(self, *arguments):
        return must([self.program, *arguments], self.environment)

    def add(self, name, repository):
        self.command("repo", "add", name, f"filesystem://{repository}", "--password-env", "GOLDEN", "--act-as", OWNER, "--exclusive")

    def cpu(self):
        return cpu(self.process)

    def token(self):
        folder = f"{self.home}/config/verger/tokens"
        with open(os.path.join(folder, os.listdir(folder)[0]), encoding="utf-8") as file:
            return file.read().strip()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def golden(folder, name):
    target = f"{folder}/{name}"
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(target, filter="data")
    found = [d for d, _, files in os.walk(target) if "kopia.repository.f" in files]
    return found[0]


def overhead(program, folder, runs):
    """Seconds of a cycle alone and through a coordinator."""
    up, seconds = Up(program, folder), {"maintain": [], "up": []}
    for run in range(runs):
        alone = golden(folder, f"alone-{run}")
        home = tempfile.mkdtemp(dir=folder)
        environment = dict(os.environ, KOPIA_PASSWORD="golden", HOME=home, XDG_STATE_HOME=f"{home}/state")
        command = [program, "maintain", *CYCLE, "--act-as", OWNER, "--json", "--quiet", f"filesystem://{alone}"]
        figures, _ = measure(command, environment)
        seconds["maintain"].append(figures["wall"])
        up.add(f"r{run}", golden(folder, f"through-{run}"))
        figures, _ = measure([program, "cycle", "start", f"r{run}", *CYCLE, "--wait", "--json"], up.environment)
        seconds["up"].append(figures["wall"])
        # What it was remembered for is asked for once more by nobody.
        up.command("repo", "remove", f"r{run}")
    up.stop()
    median = {name: statistics.median(all_of) for name, all_of in seconds.items()}
    report = {**median, "more": median["up"] - median["maintain"], "all": seconds}
    print(f"a cycle: {median['maintain']:.3f} s alone, {median['up']:.3f} s through verger up: {report['more']:+.3f} s")
    return report


def commands(program, folder, seconds, connections=16):
    """Durable commands a second."""
    up = Up(program, folder)
    names = [f"r{number}" for number in range(connections)]
    for name in names:
        up.add(name, golden(folder, f"commands-{name}"))
    rate = changes_a_second([(up.port, up.token())] * connections, names, seconds)
    up.stop()
    print(f"commands: {rate:.0f} a second, durable, one node, {connections} connections")
    return {"commands_a_second": rate, "connections": connections}


def changes_a_second(places, names, seconds):
    """One connection to each place, which changes the repository of its own again and again."""
    until, counts = time.monotonic() + seconds, [0] * len(places)

    def change(index):
        port, token = places[index]
        connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while time.monotonic() < until:
            body = json.dumps({"suspended": counts[index] % 2 == 0})
            connection.request("PATCH", f"/v1/repositories/{names[index]}", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                sys.exit(f"the API answered {answer.status}")
            counts[index] += 1

    threads = [threading.Thread(target=change, args=(index,)) for index in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def three(program, folder, seconds, connections=16):
    """Durable commands a second on three coordinators."""
    home = tempfile.mkdtemp(dir=folder)
    fleet, names = Fleet(program, home, [1, 2, 3], GOLDEN="golden"), [f"r{number}" for number in range(connections)]
    try:
        leader = fleet.leader()
        for name in names:
            fleet.verger("repo", "add", name, f"filesystem://{golden(folder, f'three-{name}')}", "--password-env", "GOLDEN", "--observe")
        place = {node: (fleet.api[node], fleet.token(node)) for node in fleet.nodes}
        led = changes_a_second([place[leader]] * connections, names, seconds)
        spread = changes_a_second([place[1 + index % 3] for index in range(connections)], names, seconds)
        if fleet.leader() != leader:
            sys.exit("another coordinator led in the end: the figures are of no use")
    finally:
        fleet.stop()
    print(f"commands: {led:.0f} a second at the leader of three, {spread:.0f} spread over the three, {connections} connections")
    return {"at_the_leader": led, "spread": spread, "connections": connections}


def lead_and_hand(program, folder):
    """Two coordinators; the first, which leads, has no workers."""
    return Fleet(program, tempfile.mkdtemp(dir=folder), [1, 2], {1: 0, 2: os.cpu_count()}, GOLDEN="golden")


def leads(fleet, otherwise):
    """Ends with these words unless the first one leads."""
    if fleet.leader() != 1:
        sys.exit(otherwise)


def add_scheduled(fleet, index, quick):
    """A copy of the golden repository, whose quick cycles alone have a schedule."""
    repository = f"filesystem://{golden(fleet.folder, f'r{index}')}"
    fleet.verger("repo", "add", f"r{index}", repository, "--password-env", "GOLDEN", "--act-as", OWNER, "--exclusive",
                 "--full-schedule", "never", "--quick-schedule", quick, "--index-schedule", "never")


def alone(program, folder, number, seconds):
    """CPU of a coordinator without workers, beside one that does the work."""
    fleet = lead_and_hand(program, folder)
    try:
        leads(fleet, "the coordinator with workers leads: run it again")
        part, rest = max(1, number // 4), {}
        for index in range(number):
            # The schedule makes nothing due: what is asked for is all that runs.
            add_scheduled(fleet, index, "never")
            if index + 1 in (part, number):
                rest[index + 1] = at_rest(fleet.processes[1], seconds)
        began, before = time.monotonic(), cpu(fleet.processes[1])
        work = cpu(fleet.processes[2])
        for index in range(number):
            status, _ = fleet.ask(1, "POST", f"/v1/repositories/r{index}/cycles", {"mode": "quick"})
            if status not in (200, 202):
                sys.exit(f"the API answered {status}")
        while not over(fleet):
            time.sleep(1)
        wall = time.monotonic() - began
        lead, work = cpu(fleet.processes[1]) - before, cpu(fleet.processes[2]) - work
        leads(fleet, "another coordinator led in the end: the figures are of no use")
    finally:
        fleet.stop()
    slope = (rest[number] - rest[part]) / (number - part) if number > part else 0
    rest_of_1000 = rest[number] + slope * (1000 - number)
    cycle = max(0, lead - rest[number] * wall) / number
    share = 1000 * cycle / 3600 + rest_of_1000
    print(f"a coordinator alone: {1000 * cycle:.1f} ms of CPU a quick cycle ({1000 * work / number:.0f} ms where it is done), "
          f"at rest {100 * rest[part]:.2f} % of a core with {part} repositories, {100 * rest[number]:.2f} % with {number}")
    print(f"1,000 repositories with an hourly quick cycle: {100 * share:.1f} % of a core for the coordinator alone")
    return {"repositories": number, "wall": wall, "cpu_a_cycle": cycle, "cpu_of_the_work": work / number, "rest": rest,
            "rest_of_1000": rest_of_1000, "share_of_1000_hourly": share}


def hour(program, folder, number, seconds):
    """CPU of a coordinator without workers whose repositories are maintained by their schedules, beside one that does the work."""
    fleet = lead_and_hand(program, folder)
    try:
        leads(fleet, "the coordinator with workers leads: run it again")
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda index: add_scheduled(fleet, index, "every 1h"), range(number)))
        # The first slots are over, and from now on each repository has one an hour.
        while not over(fleet):
            time.sleep(10)
        since, lead, work = time.time(), cpu(fleet.processes[1]), cpu(fleet.processes[2])
        time.sleep(seconds)
        lead, work = cpu(fleet.processes[1]) - lead, cpu(fleet.processes[2]) - work
        leads(fleet, "another coordinator led in the end: the figures are of no use")
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        told = fleet.verger("events", "--since", began, "--json").splitlines()
        cycles = sum(json.loads(line)["kind"] == "cycle_closed" for line in told)
    finally:
        fleet.stop()
    print(f"{number} repositories, {seconds:.0f} s: {cycles} quick cycles by schedule; the leader took {100 * lead / seconds:.2f} % of a core, "
          f"the other, which did them, {100 * work / seconds:.1f} %")
    return {"repositories": number, "seconds": seconds, "cycles": cycles, "share": lead / seconds, "share_of_the_work": work / seconds}


def at_rest(process, seconds):
    """Share of a core while nothing is asked."""
    time.sleep(2)
    before = cpu(process)
    time.sleep(seconds)
    return (cpu(process) - before) / seconds


def over(fleet):
    """Whether all that was asked for is done. Asked seldom and of the one that works: it is no part of what is measured."""
    _, all_of = fleet.ask(2, "GET", "/v1/repositories")
    return all_of is not None and all(one["queued"] == 0 and "openCycle" not in one and "lastCycle" in one for one in all_of)


def repositories(program, folder, number, idle):
    """CPU of one process with many repositories: a quick cycle of each, then nothing."""
    up = Up(program, folder)
    for index in range(number):
        up.add(f"r{index}", golden(folder, f"many-{index}"))
    began, cpu = time.monotonic(), up.cpu()
    for index in range(number):
        up.command("cycle", "start", f"r{index}", "--quick")
    while not done(up):
        time.sleep(0.5)
    wall, busy = time.monotonic() - began, up.cpu() - cpu
    cpu = up.cpu()
    time.sleep(idle)
    rest = (up.cpu() - cpu) / idle
    up.stop()
    share = 1000 * (busy / number) / 3600 + rest * 1000 / number
    print(f"{number} quick cycles: {wall:.1f} s, {1000 * busy / number:.0f} ms of CPU each; at rest {100 * rest:.2f} % of a core")
    print(f"1,000 repositories with an hourly quick cycle: {100 * share:.1f} % of a core, work included")
    return {"repositories": number, "cpu_a_cycle": busy / number, "cpu_at_rest": rest, "share_of_1000_hourly": share}


def done(up):
    """Whether nothing is asked for and nothing is under way."""
    connection = http.client.HTTPConnection("127.0.0.1", up.port)
    connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {up.token()}"})
    status = json.loads(connection.getresponse().read())
    return status["openCycles"] == 0 and all(one["queued"] == 0 for one in json.loads(up.command("repo", "list", "--json")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verger")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repositories", type=int, default=200)
    parser.add_argument("--hour", type=float, default=3600)
    parser.add_argument("--only", nargs="+", metavar="PART", help="only these parts")
    parser.add_argument("--out", help="write the figures as JSON")
    arguments = parser.parse_args()
    program, folder = os.path.abspath(arguments.verger), tempfile.mkdtemp(prefix="verger-bench-")
    seconds, number = arguments.seconds, arguments.repositories
    parts = {
        "overhead": lambda: overhead(program, folder, arguments.runs),
        "commands": lambda: commands(program, folder, seconds),
        "repositories": lambda: repositories(program, folder, number, seconds),
        "three": lambda: three(program, folder, seconds),
        "alone": lambda: alone(program, folder, number, seconds),
        "hour": lambda: hour(program, folder, number, arguments.hour),
    }
    wanted = arguments.only or [name for name in parts if name != "hour"]
    report = {name: part() for name, part in parts.items() if name in wanted}
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
