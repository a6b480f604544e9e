"""The test programs of the workspace, as cargo builds them, and how one of them is run."""

import json
import os
import stat
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# How the programs of unit tests are called, by the name of the library that they are in; others have the name of their file.
UNIT_TESTS = {"verger_kopia": "kopia", "verger_worker": "worker", "verger_coordinator": "coordinator",
              "verger_proto": "proto", "verger": "verger"}


class NotBuilt(Exception):
    """What the compiler says."""


def cargo(command, **how):
    """Run a command of cargo: what `subprocess.run` gives. Cargo asks rustc about its target by a program that it reads from /dev/null.
    On some machines that is a file: what others wrote into it would be compiled, and no two builds would go the same way."""
    if stat.S_ISREG(os.stat(os.devnull).st_mode) and os.path.getsize(os.devnull):
        print(f"{os.devnull} is a file on this machine, no device, and not empty: it is emptied", file=sys.stderr, flush=True)
        os.truncate(os.devnull, 0)
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, **how)


def build(flags, files=None):
    """Build all test programs, or the unit tests and those of these files: [(name, artifact)]. With the feature `mutants`, which
    changes nothing until a mutant is chosen: so one build serves both the tests as they are and the mutants."""
    # One call for all: a call for one package would build the others' libraries again with other features.
    command = ["cargo", "test", "--workspace", *flags, "--features", "mutants", "--no-run",
               "--message-format", "json-render-diagnostics"]
    if files is not None:
        command += ["--lib"] + [word for name in sorted(files) for word in ("--test", name)]
    print("+", " ".join(command), flush=True)
    done = cargo(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise NotBuilt("the test programs do not build")
    found = []
    for line in done.stdout.splitlines():
        artifact = json.loads(line)
        if not artifact.get("executable") or not artifact.get("profile", {}).get("test"):
            continue
        kind, name = artifact["target"]["kind"][0], artifact["target"]["name"]
        found.append(({"lib": UNIT_TESTS.get(name, name), "bin": f"{name} (program)"}.get(kind, name), artifact))
    return found


def run(artifact, arguments, environment, limit):
    """Run one program as cargo would: (exit code, output). `subprocess.TimeoutExpired` after so many seconds."""
    folder = os.path.dirname(artifact["manifest_path"])
    done = subprocess.run([artifact["executable"], *arguments], env=dict(environment, CARGO_MANIFEST_DIR=folder), cwd=folder,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=limit)
    return done.returncode, done.stdout
