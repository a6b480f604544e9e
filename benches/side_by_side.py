#!/usr/bin/env python3
"""Maintenance by Verger and by the real Kopia on copies of one repository, side by side in one run; figures as ratios.

    benches/side_by_side.py VERGER [--dirs 6000] [--files 100] [--dead 0.2] [--runs 3] [--keep DIR] [--out FILE]

Needs a real `kopia` on PATH. Makes a tree of small files (make_tree.py), three snapshots of it with changes in between, deletes the
first, and runs a full cycle without margins on fresh copies, the two programs taking turns: cold caches, wall time, CPU time and peak
memory of the whole process. Afterwards the real program verifies what Verger left. Timings of a shared machine are noise; their ratio in
one run is less so: the median and the range of all runs are given."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

from peer import kopia_environment, make_repository, measure, must


def run_verger(program, repository, folder):
    home = tempfile.mkdtemp(dir=folder)
    environment = dict(os.environ, KOPIA_PASSWORD="bench", HOME=home, XDG_STATE_HOME=f"{home}/state")
    command = [program, "maintain", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--act-as",
               "owner@bench", "--json", "--quiet", f"filesystem://{repository}"]
    figures, out = measure(command, environment)
    return figures, json.loads(out)["tasks"]["snapshot-gc"]


def run_kopia(repository, folder):
    home = tempfile.mkdtemp(dir=folder)
    environment = kopia_environment(home)
    must(["kopia", "repository", "connect", "filesystem", f"--path={repository}", "--override-username=owner",
          "--override-hostname=bench"], environment)
    shutil.rmtree(f"{home}/cache", ignore_errors=True)
    figures, _ = measure(["kopia", "maintenance", "run", "--full", "--safety=none"], environment)
    info = json.loads(must(["kopia", "maintenance", "info", "--json"], environment))
    return figures, info["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"]


def verify(repository, folder):
    home = tempfile.mkdtemp(dir=folder)
    environment = kopia_environment(home)
    must(["kopia", "repository", "connect", "filesystem", f"--path={repository}"], environment)
    must(["kopia", "snapshot", "verify", "--verify-files-percent=1"], environment)
    must(["kopia", "content", "verify"], environment)


def blobs(repository):
    packs = [f for _, _, files in os.walk(repository) for f in files if f.endswith(".f")]
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(repository) for f in files)
    return {"blobs": len(packs), "bytes": size}


def compare(program, repository, folder, runs):
    """Runs both on copies of a repository, in turns; medians, and ratios (Kopia / Verger) by figure."""
    results, stats = {"verger": [], "kopia": []}, {}
    for run in range(runs):
        for name in ("kopia", "verger") if run % 2 else ("verger", "kopia"):
            copy = f"{folder}/{name}-{run}"
            subprocess.run(["cp", "-a", repository, copy], check=True)
            os.sync()
            if name == "verger":
                figures, stats[name] = run_verger(os.path.abspath(program), copy, folder)
            else:
                figures, stats[name] = run_kopia(copy, folder)
            figures.update(blobs(copy))
            results[name].append(figures)
            print(f"run {run + 1} {name:7} {figures['wall']:7.2f} s wall {figures['cpu']:7.2f} s CPU "
                  f"{figures['memory']:7.0f} MB, leaves {figures['blobs']} blobs, {figures['bytes'] / 1e6:.0f} MB", flush=True)
            if name == "verger" and run == 0:
                verify(copy, folder)
                print("kopia verifies what verger left", flush=True)
            shutil.rmtree(copy)
    if stats["verger"] != stats["kopia"]:
        sys.exit(f"the two disagree: {stats}")
    report = {"contents": {k: v for k, v in stats["kopia"].items() if k.endswith("ContentCount")}, "before": blobs(repository)}
    for figure in ("wall", "cpu", "memory"):
        ratios = [k[figure] / v[figure] for k, v in zip(results["kopia"], results["verger"])]
        report[figure] = {name: statistics.median(r[figure] for r in rows) for name, rows in results.items()}
        report[figure]["ratio"] = statistics.median(ratios)
        report[figure]["ratios"] = sorted(ratios)
        print(f"{figure}: kopia / verger = {report[figure]['ratio']:.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verger")
    parser.add_argument("--dirs", type=int, default=6000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--dead", type=float, help="the fraction of all contents that is dead, spread over all packs")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", help="make the repository here, or use the one that is there")
    parser.add_argument("--out", help="write the figures as JSON")
    arguments = parser.parse_args()
    if not shutil.which("kopia"):
        sys.exit("no kopia on PATH: there is nothing to compare with")
    folder = arguments.keep or tempfile.mkdtemp(prefix="verger-bench-")
    os.makedirs(folder, exist_ok=True)
    repository = f"{folder}/repository"
    if not os.path.exists(repository):
        make_repository(folder, arguments.dirs, arguments.files, arguments.dead)
    report = compare(arguments.verger, repository, folder, arguments.runs)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=1)
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
