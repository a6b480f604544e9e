"""What the side-by-side benches share: the real Kopia, a repository with dead contents, and the measure of one process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def kopia_environment(home):
    return dict(os.environ, KOPIA_PASSWORD="bench", KOPIA_CHECK_FOR_UPDATES="false", KOPIA_CONFIG_PATH=f"{home}/config",
                KOPIA_CACHE_DIRECTORY=f"{home}/cache", KOPIA_LOG_DIR=f"{home}/log")


def must(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def make_snapshots(tree, dirs, files, environment, dead=None):
    """Three snapshots of a tree of small files with changes in between, the first one deleted again. With `dead`, two snapshots: that
    fraction of the files of every folder is gone before the second."""
    maker = [sys.executable, os.path.join(HERE, "make_tree.py"), tree, str(dirs), str(files)]
    shutil.rmtree(tree, ignore_errors=True)
    must([*maker, "1"], environment)
    must(["kopia", "maintenance", "set", "--enable-quick=false", "--enable-full=false"], environment)
    must(["kopia", "snapshot", "create", "--no-progress", tree], environment)
    for seed, change in (("2", "0.3"), ("3", "0.3")) if dead is None else (("2", str(-dead)),):
        must([*maker, seed, change], environment)
        must(["kopia", "snapshot", "create", "--no-progress", tree], environment)
    first = json.loads(must(["kopia", "snapshot", "list", "--json"], environment))[0]["id"]
    must(["kopia", "snapshot", "delete", first, "--delete"], environment)
    shutil.rmtree(tree)


def make_sources(tree, count, dirs, files, environment):
    """One snapshot each of so many trees, as a cluster's volumes make them: each leaves a pack of files and one of directories. Every
    third is deleted again."""
    must(["kopia", "maintenance", "set", "--enable-quick=false", "--enable-full=false"], environment)
    for number in range(count):
        path = f"{tree}/{number}"
        must([sys.executable, os.path.join(HERE, "make_tree.py"), path, str(dirs), str(files), str(number)], environment)
        must(["kopia", "snapshot", "create", "--no-progress", path], environment)
        shutil.rmtree(path)
    snapshots = [one["id"] for one in json.loads(must(["kopia", "snapshot", "list", "--all", "--json"], environment))]
    must(["kopia", "snapshot", "delete", "--delete", *snapshots[::3]], environment)


def make_repository(folder, dirs, files, dead, sources=None):
    """A repository with dead contents in it; its path."""
    home, repository = f"{folder}/make", f"{folder}/repository"
    environment = kopia_environment(home)
    must(["kopia", "repository", "create", "filesystem", f"--path={repository}", "--override-username=owner",
          "--override-hostname=bench"], environment)
    if sources is None:
        make_snapshots(f"{folder}/tree", dirs, files, environment, dead)
    else:
        make_sources(f"{folder}/tree", sources, dirs, files, environment)
    shutil.rmtree(home, ignore_errors=True)
    return repository


def measure(command, environment):
    """Wall and CPU seconds, peak memory in MB, and standard output of one process."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(f"{' '.join(command)}: {err.read().decode()}")
        return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}, out.read()
