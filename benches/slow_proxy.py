#!/usr/bin/env python3
"""An HTTP/1.1 proxy on loopback that adds a round trip to every request and counts requests and bytes:
slow_proxy.py LISTEN_PORT TARGET_PORT MILLISECONDS

Prints one JSON line with the counts when it is told to end (SIGTERM)."""

import asyncio
import collections
import json
import signal
import sys

LISTEN, TARGET, DELAY = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000
COUNTS = collections.Counter()


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return head, lines[0], fields


async def copy_body(reader, writer, fields, has_body):
    """Passes a body on; how many bytes it had."""
    total = 0
    if "chunked" in fields.get("transfer-encoding", "").lower():
        while True:
            line = await reader.readline()
            writer.write(line)
            size = int(line.split(b";")[0], 16)
            writer.write(await reader.readexactly(size + 2))
            total += size
            if not size:
                break
    elif has_body:
        left = int(fields.get("content-length", 0))
        while left:
            data = await reader.read(min(left, 1 << 18))
            if not data:
                raise ConnectionError("the body ends early")
            writer.write(data)
            await writer.drain()
            left -= len(data)
            total += len(data)
    await writer.drain()
    return total


async def serve(reader, writer):
    try:
        upstream, to_upstream = await asyncio.open_connection("127.0.0.1", TARGET)
    except OSError:
        writer.close()
        return
    try:
        while True:
            head, line, fields = await read_head(reader)
            method = line.split(" ", 1)[0]
            await asyncio.sleep(DELAY)
            to_upstream.write(head)
            if "100-continue" in fields.get("expect", "").lower():
                await to_upstream.drain()
                writer.write((await read_head(upstream))[0])
                await writer.drain()
            COUNTS["requests"] += 1
            COUNTS[method] += 1
            COUNTS["bytes up"] += await copy_body(reader, to_upstream, fields, True)
            answer, status, answered = await read_head(upstream)
            writer.write(answer)
            silent = method == "HEAD" or status.split(" ")[1] in ("204", "304")
            COUNTS["bytes down"] += await copy_body(upstream, writer, answered, not silent)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        to_upstream.close()
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", LISTEN, limit=1 << 20)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with server:
        await over.wait()
    print(json.dumps(COUNTS), flush=True)


asyncio.run(main())
