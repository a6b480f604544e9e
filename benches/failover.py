#!/usr/bin/env python3
"""How long three coordinators take no commands after a kill -9 of the leader.

    benches/failover.py VERGER [--kills 100] [--out FILE]

Three processes on loopback with mutual TLS (certificates by `openssl`). Each time: kill the leader, and ask the two others for a
command again and again until one is acknowledged; then start the killed one again and wait until it has caught up. Prints the median,
the 99th percentile and the longest, in seconds."""

import argparse
import http.client
import json
import os
import pathlib
import socket
import subprocess
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NODES = [1, 2, 3]


def must(command, **rest):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **rest).stdout


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def certificates(folder):
    subject = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    must(["openssl", "req", "-x509", *subject, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"], cwd=folder)
    for node in NODES:
        must(["openssl", "req", "-x509", *subject, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{node}.key", "-out",
              f"{node}.pem", "-subj", f"/CN=node-{node}", "-addext", f"subjectAltName=DNS:node-{node}",
              "-addext", "basicConstraints=critical,CA:FALSE"], cwd=folder)


class Fleet:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.api = {node: port() for node in NODES}
        self.peer = {node: port() for node in NODES}
        self.processes = {}
        self.environment = dict(os.environ, HOME=folder, XDG_CONFIG_HOME=f"{folder}/config", PHOTOS_PASSWORD="golden",
                                VERGER_ADDR=",".join(f"http://127.0.0.1:{self.api[node]}" for node in NODES))
        certificates(folder)
        self.verger("cluster", "init", "bench", "--node-id", 1, "--data-dir", f"{folder}/1")
        self.start(1)
        for node in NODES[1:]:
            self.verger("cluster", "join", "--node-id", node, "--data-dir", f"{folder}/{node}", "--peer-address",
                        f"127.0.0.1:{self.peer[node]}", "--api-address", f"http://127.0.0.1:{self.api[node]}")
            self.start(node)

    def verger(self, *arguments):
        return must([self.program, *arguments], env=self.environment)

    def start(self, node):
        log = open(f"{self.folder}/log-{node}", "a")
        command = [self.program, "coordinator", "--data-dir", f"{self.folder}/{node}", "--listen", f"127.0.0.1:{self.api[node]}",
                   "--peer-listen", f"127.0.0.1:{self.peer[node]}", "--peer-cert", f"{self.folder}/{node}.pem", "--peer-key",
                   f"{self.folder}/{node}.key", "--peer-ca", f"{self.folder}/ca.pem"]
        self.processes[node] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def ask(self, node, method, path, body=None):
        """Status and document; 0 if nobody answers."""
        tokens = pathlib.Path(self.folder, "config/verger/tokens")
        token = next((path.read_text().strip() for path in tokens.glob(f"*{self.api[node]}*")), "")
        connection = http.client.HTTPConnection("127.0.0.1", self.api[node], timeout=20)
        try:
            connection.request(method, path, body and json.dumps(body), {"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def leader(self):
        """Who leads three nodes of which none is behind."""
        while True:
            for node in NODES:
                status, shown = self.ask(node, "GET", "/v1/cluster")
                if status == 200 and shown.get("leader") == node:
                    members = shown["nodes"]
                    if len(members) == 3 and all(one["votes"] and one.get("behind", 99) < 3 for one in members):
                        return node
            time.sleep(0.1)

    def fail_over(self):
        leader = self.leader()
        rest = [node for node in NODES if node != leader]
        self.processes[leader].kill()
        began = time.monotonic()
        self.processes[leader].wait()
        turn = 0
        while True:
            status, _ = self.ask(rest[turn % 2], "PATCH", "/v1/repositories/photos", {"suspended": bool(turn % 4 < 2)})
            if status == 200:
                break
            turn += 1
            time.sleep(0.01)
        took = time.monotonic() - began
        self.start(leader)
        return took

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--out")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ROOT / "tests/golden/default.tar.gz") as archive:
            archive.extractall(f"{folder}/golden", filter="data")
        fleet = Fleet(os.path.abspath(options.program), folder)
        try:
            fleet.leader()
            fleet.verger("repo", "add", "photos", f"filesystem://{folder}/golden/default/repo", "--password-env",
                         "PHOTOS_PASSWORD", "--observe")
            took = sorted(fleet.fail_over() for _ in range(options.kills))
        finally:
            fleet.stop()
    figures = {"kills": len(took), "median": took[len(took) // 2], "p99": took[max(0, -(-len(took) * 99 // 100) - 1)],
               "longest": took[-1]}
    print(json.dumps(figures))
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
