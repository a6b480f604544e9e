#!/usr/bin/env python3
"""Take each safety rule out and see that its test notices (kopia/src/mutant.rs, tests/mutants.txt).

    python3 tests/mutants.py                          all of them, with the features of a normal build
    python3 tests/mutants.py --no-default-features    without the cloud stores, which builds faster
    python3 tests/mutants.py NAME...                  only mutants whose name contains NAME

Each test runs once as it is, and must pass, and once for each of its mutants, and must fail: by a panic of the test itself,
not by a crash of its program. What takes longer than the limit counts as not caught."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Crates by the name of their library, and how the table calls their unit tests.
UNIT_TESTS = {"verger_kopia": "kopia", "verger_worker": "worker", "verger_coordinator": "coordinator", "verger": "verger"}
LIMIT_SECONDS = 120


def table():
    """Rows of (mutant, program, test)."""
    with open(os.path.join(ROOT, "tests", "mutants.txt"), encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    bad = [line for line in lines if len(line) != 3]
    if bad:
        sys.exit(f"tests/mutants.txt: {bad[0]}")
    return lines


def variants():
    """Names of the enum."""
    with open(os.path.join(ROOT, "kopia", "src", "mutant.rs"), encoding="utf-8") as file:
        return re.findall(r"^    ([A-Z][A-Za-z0-9]+),$", file.read(), re.M)


def build(programs, flags):
    """Build these test programs; their paths by name."""
    paths = {}
    files = programs - set(UNIT_TESTS.values())
    # One call for all: a call for one package would build the others' libraries again with other features.
    command = ["cargo", "test", "--workspace", *flags, "--features", "mutants", "--no-run", "--message-format", "json"]
    command += ["--lib"] if programs - files else []
    for name in sorted(files):
        command += ["--test", name]
    print("+", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        for line in done.stdout.splitlines():
            message = json.loads(line).get("message") if line.startswith("{") else None
            if message and message.get("level") == "error":
                print(message.get("rendered"))
        sys.exit("the test programs with mutants do not build")
    for line in done.stdout.splitlines():
        artifact = json.loads(line)
        if not artifact.get("executable") or not artifact.get("profile", {}).get("test"):
            continue
        target = artifact["target"]
        is_lib = "lib" in target["kind"]
        paths[UNIT_TESTS.get(target["name"], "") if is_lib else target["name"]] = artifact
    missing = programs - set(paths)
    if missing:
        sys.exit(f"no test program {sorted(missing)}")
    return paths


def run(artifact, test, mutant):
    """Run one test; (passed, failed by its own panic, seconds, output)."""
    environment = dict(os.environ, RUST_BACKTRACE="0", CARGO_MANIFEST_DIR=os.path.dirname(artifact["manifest_path"]))
    environment.pop("VERGER_MUTANT", None)
    if mutant:
        environment["VERGER_MUTANT"] = mutant
    began = time.monotonic()
    try:
        done = subprocess.run([artifact["executable"], "--exact", test, "--test-threads", "1"], env=environment,
                              cwd=environment["CARGO_MANIFEST_DIR"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return False, False, LIMIT_SECONDS, f"took more than {LIMIT_SECONDS} s"
    text, seconds = done.stdout, time.monotonic() - began
    passed = done.returncode == 0 and "test result: ok. 1 passed" in text
    panicked = re.search(r"^thread '[^']*'.* panicked at ", text, re.M)
    failed = done.returncode == 101 and "test result: FAILED. 0 passed; 1 failed" in text and bool(panicked)
    return passed, failed and "VERGER_MUTANT names no mutant" not in text, seconds, text


def check(row, good, paths):
    """(what is wrong with this mutant or None, seconds, output)."""
    mutant, program, test = row
    if not good[(program, test)][0]:
        return "its test fails without it", 0, good[(program, test)][3]
    passed, failed, seconds, text = run(paths[program], test, mutant)
    if failed:
        return None, seconds, text
    return ("not caught" if passed else "its test neither passed nor failed by itself"), seconds, text


def refuses_release(flags):
    """Whether a build without debug assertions does not compile with the feature, and says why."""
    command = ["cargo", "check", "--quiet", "--release", "--package", "verger-kopia", "--no-default-features"]
    command += [flag for flag in flags if flag == "--locked"] + ["--features", "mutants"]
    print("+", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace")
    return done.returncode != 0 and "never for a release build" in done.stdout


def main():
    flags = [a for a in sys.argv[1:] if a.startswith("--") and a != "--why"]
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    began = time.monotonic()
    rows, known = table(), variants()
    wrong = []
    if not names:
        listed = {row[0] for row in rows}
        wrong += [f"{name}: in no row of tests/mutants.txt" for name in known if name not in listed]
    wrong += [f"{row[0]}: in no enum" for row in rows if row[0] not in known]
    rows = [row for row in rows if row[0] in known and (not names or any(name in row[0] for name in names))]
    paths = build({row[1] for row in rows}, flags)
    built = time.monotonic() - began
    tests = sorted({(row[1], row[2]) for row in rows})
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        as_is = pool.map(lambda test: run(paths[test[0]], test[1], None), tests)
        good = dict(zip(tests, as_is))
        for row, (why, seconds, text) in zip(rows, pool.map(lambda row: check(row, good, paths), rows)):
            if why:
                wrong.append(f"{row[0]}: {why} ({row[1]} {row[2]})")
            if why or "--why" in sys.argv:
                panic = re.search(r"panicked at .*(?:\n.*){0,3}", text)
                print(row[0], f"{seconds:.1f} s", why or "caught", panic.group(0)[:400] if panic else text[-400:], flush=True)
    if not names and not refuses_release(flags):
        wrong.append("a release build takes the feature `mutants`")
    for line in wrong:
        print("MUTANT", line)
    took = time.monotonic() - began
    caught = len(rows) - sum(line.split(":")[0] in {row[0] for row in rows} for line in wrong)
    print(f"{len(rows)} mutants, {'all' if caught == len(rows) else caught} caught; building {built:.0f} s, all {took:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
