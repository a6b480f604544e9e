#!/usr/bin/env python3
"""Take each safety rule out and see that its test notices (kopia/src/mutant.rs, tests/mutants.txt).

    python3 tests/mutants.py                          all of them, with the features of a normal build
    python3 tests/mutants.py --no-default-features    without the cloud stores, which builds faster
    python3 tests/mutants.py NAME...                  only mutants whose name contains NAME

Each test runs once as it is, and must pass, and once for each of its mutants, and must fail: by a panic of the test itself,
not by a crash of its program. What takes longer than the limit counts as not caught. A test that is skipped because a server is missing
shows nothing: its mutants are named as skipped."""

import concurrent.futures
import os
import re
import subprocess
import sys
import time

import programs
from programs import ROOT

LIMIT_SECONDS = 120
SKIPPED = re.compile(r"^SKIPPED: .*", re.M)


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


def run_one(artifact, test, mutant, environment):
    """Run one test; (passed, failed by its own panic, seconds, output)."""
    environment = dict(environment, RUST_BACKTRACE="0")
    environment.pop("VERGER_MUTANT", None)
    if mutant:
        environment["VERGER_MUTANT"] = mutant
    began = time.monotonic()
    try:
        code, text = programs.run(artifact, ["--exact", test, "--test-threads", "1", "--show-output"], environment, LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return False, False, LIMIT_SECONDS, f"took more than {LIMIT_SECONDS} s"
    seconds = time.monotonic() - began
    passed = code == 0 and "test result: ok. 1 passed" in text
    panicked = re.search(r"^thread '[^']*'.* panicked at ", text, re.M)
    failed = code == 101 and "test result: FAILED. 0 passed; 1 failed" in text and bool(panicked)
    return passed, failed and "VERGER_MUTANT names no mutant" not in text, seconds, text


def check(row, good, paths, environment):
    """(what is wrong with this mutant or None, seconds, output)."""
    mutant, program, test = row
    if not good[(program, test)][0]:
        return "its test fails without it", 0, good[(program, test)][3]
    passed, failed, seconds, text = run_one(paths[program], test, mutant, environment)
    if failed:
        return None, seconds, text
    skipped = passed and SKIPPED.search(text)
    if skipped:
        return None, seconds, skipped.group(0)
    return ("not caught" if passed else "its test neither passed nor failed by itself"), seconds, text


def refuses_release(flags):
    """Whether a build without debug assertions does not compile with the feature, and says why."""
    command = ["cargo", "check", "--quiet", "--release", "--package", "verger-kopia", "--no-default-features"]
    command += [flag for flag in flags if flag == "--locked"] + ["--features", "mutants"]
    print("+", " ".join(command), flush=True)
    done = programs.cargo(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode != 0 and "never for a release build" in done.stdout


def take_out(rows, built, environment, verbose=False):
    """Run each test as it is, and with its mutants; what is wrong, as lines, and what was skipped."""
    paths = dict(built)
    missing = {row[1] for row in rows} - set(paths)
    if missing:
        return [f"no test program {sorted(missing)}"], set()
    wrong, skipped = [], set()
    tests = sorted({(row[1], row[2]) for row in rows})
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        as_is = pool.map(lambda test: run_one(paths[test[0]], test[1], None, environment), tests)
        good = dict(zip(tests, as_is))
        for row, (why, seconds, text) in zip(rows, pool.map(lambda row: check(row, good, paths, environment), rows)):
            if why:
                wrong.append(f"{row[0]}: {why} ({row[1]} {row[2]})")
            if SKIPPED.match(text):
                skipped.add(row[0])
                print(row[0], text, flush=True)
            elif why or verbose:
                panic = re.search(r"panicked at .*(?:\n.*){0,3}", text)
                print(row[0], f"{seconds:.1f} s", why or "caught", panic.group(0)[:400] if panic else text[-400:], flush=True)
    return wrong, skipped


def take_out_all(built, flags, environment):
    """All mutants, with programs that are built; whether all were caught, but for those whose test was skipped."""
    began = time.monotonic()
    rows, known = table(), variants()
    listed = {row[0] for row in rows}
    wrong = [f"{name}: in no row of tests/mutants.txt" for name in known if name not in listed]
    wrong += [f"{name}: in no enum" for name in sorted(listed) if name not in known]
    noticed, skipped = take_out([row for row in rows if row[0] in known], built, environment)
    wrong += noticed
    if not refuses_release(flags):
        wrong.append("a release build takes the feature `mutants`")
    return conclude(rows, wrong, skipped, began)


def conclude(rows, wrong, skipped, began):
    for line in wrong:
        print("MUTANT", line)
    caught = len({row[0] for row in rows} - {line.split(":")[0] for line in wrong} - skipped)
    print(f"{len(rows)} mutants, {caught} caught, {len(skipped)} skipped, {time.monotonic() - began:.0f} s", flush=True)
    return not wrong


def main():
    flags = [a for a in sys.argv[1:] if a.startswith("--") and a != "--why"]
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    rows = [row for row in table() if not names or any(name in row[0] for name in names)]
    files = {row[1] for row in rows} - set(programs.UNIT_TESTS.values())
    try:
        built = programs.build(flags, files)
    except programs.NotBuilt as error:
        sys.exit(str(error))
    if names:
        began = time.monotonic()
        sys.exit(0 if conclude(rows, *take_out(rows, built, os.environ, "--why" in sys.argv), began) else 1)
    sys.exit(0 if take_out_all(built, flags, os.environ) else 1)


if __name__ == "__main__":
    main()
