"""Coordinators on loopback with mutual TLS between them, for benches (certificates by `openssl`)."""

import http.client
import json
import os
import pathlib
import socket
import subprocess
import time


def must(command, **rest):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **rest).stdout


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_nats(program, folder):
    """A NATS server with JetStream on loopback, and its address."""
    free = port()
    command = [program, "--jetstream", "--addr", "127.0.0.1", "--port", str(free), "--store_dir", f"{folder}/nats"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), f"nats://127.0.0.1:{free}"


def cpu(process):
    """CPU seconds of a process so far."""
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def certificates(folder, nodes):
    subject = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    must(["openssl", "req", "-x509", *subject, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"], cwd=folder)
    for node in nodes:
        must(["openssl", "req", "-x509", *subject, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{node}.key", "-out",
              f"{node}.pem", "-subj", f"/CN=node-{node}", "-addext", f"subjectAltName=DNS:node-{node}",
              "-addext", "basicConstraints=critical,CA:FALSE"], cwd=folder)


class Fleet:
    """One coordinator for each number; `workers`: how many each has, by number."""

    def __init__(self, program, folder, nodes, workers=None, **environment):
        self.program, self.folder, self.nodes, self.workers = program, str(folder), nodes, workers or {}
        self.api = {node: port() for node in nodes}
        self.peer = {node: port() for node in nodes}
        self.processes = {}
        self.environment = dict(os.environ, HOME=self.folder, XDG_CONFIG_HOME=f"{folder}/config",
                                VERGER_ADDR=",".join(f"http://127.0.0.1:{self.api[node]}" for node in nodes), **environment)
        certificates(folder, nodes)
        first, *others = nodes
        self.verger("cluster", "init", "bench", "--node-id", first, "--data-dir", f"{folder}/{first}")
        self.start(first)
        for node in others:
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
        command += ["--workers", str(self.workers[node])] if node in self.workers else []
        self.processes[node] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def token(self, node):
        tokens = pathlib.Path(self.folder, "config/verger/tokens")
        return next((path.read_text().strip() for path in tokens.glob(f"*{self.api[node]}*")), "")

    def ask(self, node, method, path, body=None):
        """Status and document; 0 if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api[node], timeout=20)
        try:
            headers = {"Authorization": f"Bearer {self.token(node)}"}
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def leader(self):
        """Who leads, once all vote and none is behind."""
        while True:
            for node in self.nodes:
                status, shown = self.ask(node, "GET", "/v1/cluster")
                if status == 200 and shown.get("leader") == node:
                    members = shown["nodes"]
                    if len(members) == len(self.nodes) and all(one["votes"] and one.get("behind", 99) < 3 for one in members):
                        return node
            time.sleep(0.1)

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
