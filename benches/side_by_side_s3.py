#!/usr/bin/env python3
"""As side_by_side.py, on an S3 server behind a proxy that adds a round trip to each request and counts requests and bytes.

    benches/side_by_side_s3.py VERGER WEED [--dirs 1000] [--files 100] [--milliseconds 30] [--keep DIR] [--out FILE]

The repository is made on local disk as there (or is the one that --keep has there), and synchronised to the server once for each of
the two. Needs a real `kopia` on PATH and SeaweedFS' `weed`. Everything listens on loopback and ends with the script. Verger's requests
are held against what must be: blobs read and written, batches of deeds, and 60."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from peer import kopia_environment, make_repository, measure, must

HERE = os.path.dirname(os.path.abspath(__file__))
KEY, SECRET = "bench", "bench-secret"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_server(weed, folder):
    config = {"identities": [{"name": "bench", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                              "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
    with open(f"{folder}/s3.json", "w", encoding="utf-8") as out:
        json.dump(config, out)
    ports = {name: free_port() for name in ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
                                            "filer.port.grpc", "s3.port", "s3.port.grpc", "s3.port.iceberg")}
    os.makedirs(f"{folder}/data")
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer", "-master.telemetry=false", "-volume.max=100",
               "-master.volumeSizeLimitMB=256", "-s3.port.lance=0", f"-dir={folder}/data", f"-s3.config={folder}/s3.json",
               f"-filer.localSocket={folder}/filer.sock", *(f"-{name}={port}" for name, port in ports.items())]
    log = open(f"{folder}/weed.log", "w", encoding="utf-8")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{ports['s3.port']}/", timeout=2)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.3)
    time.sleep(5)
    return process, ports["s3.port"]


class Proxy:
    """The slow proxy for the time of one run."""

    def __init__(self, target, milliseconds):
        self.port = free_port()
        command = [sys.executable, os.path.join(HERE, "slow_proxy.py"), str(self.port), str(target), str(milliseconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(1)

    def counts(self):
        self.process.send_signal(signal.SIGTERM)
        return json.loads(self.process.communicate(timeout=20)[0])


def connect(verb, port, prefix, environment):
    must(["kopia", "repository", verb, "s3", f"--endpoint=127.0.0.1:{port}", "--disable-tls", "--bucket=bench",
          f"--prefix={prefix}", f"--access-key={KEY}", f"--secret-access-key={SECRET}", "--region=us-east-1",
          "--override-username=owner", "--override-hostname=bench"], environment)


def fill(repository, folder, port, prefix):
    """The same repository under a prefix of the bucket, copied there without the proxy."""
    environment = kopia_environment(f"{folder}/copy-{prefix.strip('/')}")
    must(["kopia", "repository", "connect", "filesystem", f"--path={repository}"], environment)
    must(["kopia", "repository", "sync-to", "s3", f"--endpoint=127.0.0.1:{port}", "--disable-tls", "--bucket=bench",
          f"--prefix={prefix}", f"--access-key={KEY}", f"--secret-access-key={SECRET}", "--region=us-east-1", "--parallel=4",
          "--no-progress"], environment)
    connect("connect", port, prefix, environment)
    return environment


def run_kopia(folder, proxy, prefix):
    environment = kopia_environment(tempfile.mkdtemp(dir=folder))
    connect("connect", proxy.port, prefix, environment)
    shutil.rmtree(environment["KOPIA_CACHE_DIRECTORY"], ignore_errors=True)
    return measure(["kopia", "maintenance", "run", "--full", "--safety=none"], environment)[0]


def run_verger(program, folder, proxy, prefix):
    home = tempfile.mkdtemp(dir=folder)
    environment = dict(os.environ, KOPIA_PASSWORD="bench", HOME=home, AWS_S3_ENDPOINT=f"http://127.0.0.1:{proxy.port}",
                       AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET)
    return measure([program, "maintain", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--act-as",
                    "owner@bench", "--json", "--quiet", f"s3://bench/{prefix}"], environment)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verger")
    parser.add_argument("weed")
    parser.add_argument("--dirs", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--dead", type=float, help="the fraction of all contents that is dead, spread over all packs")
    parser.add_argument("--milliseconds", type=int, default=30)
    parser.add_argument("--keep", help="make the repository here, or use the one that is there")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if not shutil.which("kopia"):
        sys.exit("no kopia on PATH: there is nothing to compare with")
    folder = tempfile.mkdtemp(prefix="verger-bench-s3-")
    kept = arguments.keep or folder
    os.makedirs(kept, exist_ok=True)
    if not os.path.exists(f"{kept}/repository"):
        make_repository(kept, arguments.dirs, arguments.files, arguments.dead)
    try:
        rows = run_both(arguments.verger, arguments.weed, f"{kept}/repository", arguments.milliseconds, folder)
        report(rows, arguments.out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_both(program, weed, repository, milliseconds, folder):
    """Figures of the two programs by name, each on its own copy of a repository on a server of its own."""
    server, port = start_server(os.path.abspath(weed), folder)
    try:
        subprocess.run([sys.executable, "-c", MAKE_BUCKET, str(port), KEY, SECRET], check=True)
        rows = {}
        for name in ("kopia", "verger"):
            prefix = f"{name}/"
            direct = fill(repository, folder, port, prefix)
            proxy = Proxy(port, milliseconds)
            if name == "verger":
                run = run_verger(os.path.abspath(program), folder, proxy, prefix)
            else:
                run = run_kopia(folder, proxy, prefix)
            run.update(proxy.counts())
            rows[name] = run
            must(["kopia", "snapshot", "verify"], direct)
            print(name, {k: round(v, 2) for k, v in run.items()}, flush=True)
        return rows
    finally:
        server.kill()
        server.wait()


def report(rows, path):
    for figure in ("wall", "cpu", "memory", "requests", "bytes down", "bytes up"):
        print(f"{figure}: kopia / verger = {rows['kopia'].get(figure, 0) / max(rows['verger'].get(figure, 0), 1e-9):.1f}")
    if path:
        with open(path, "w", encoding="utf-8") as out:
            json.dump(rows, out, indent=1)


# A signed PUT of a bucket with nothing but the standard library.
MAKE_BUCKET = """
import datetime, hashlib, hmac, sys, urllib.request
port, key, secret = sys.argv[1:]
now = datetime.datetime.now(datetime.timezone.utc)
stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
empty = hashlib.sha256(b"").hexdigest()
headers = {"host": f"127.0.0.1:{port}", "x-amz-content-sha256": empty, "x-amz-date": stamp}
names = ";".join(sorted(headers))
request = "PUT\\n/bench\\n\\n" + "".join(f"{n}:{headers[n]}\\n" for n in sorted(headers)) + f"\\n{names}\\n{empty}"
scope = f"{day}/us-east-1/s3/aws4_request"
text = f"AWS4-HMAC-SHA256\\n{stamp}\\n{scope}\\n" + hashlib.sha256(request.encode()).hexdigest()
sign = lambda k, m: hmac.new(k, m.encode(), hashlib.sha256).digest()
signing = sign(sign(sign(sign(b"AWS4" + secret.encode(), day), "us-east-1"), "s3"), "aws4_request")
signature = hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()
headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bench", method="PUT", headers=headers))
"""


if __name__ == "__main__":
    main()
