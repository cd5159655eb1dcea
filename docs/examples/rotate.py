#!/usr/bin/env python3
"""Rotates a certificate authority by messages alone, from the first step to the last.

    rotate.py NATS_URL CLUSTER USER TYPE REASON
    rotate.py nats://deploy:PASSWORD@127.0.0.1:4222 acme.cluster deploy host CHG-4411

USER is a user of the cluster with the role `operator`, and the user of NATS that may publish below that name. Needs
nats-py. Says each phase with its position in the log; ends with 3 where a step is refused for good, with 4 where nobody
answers.
"""

import asyncio
import json
import os
import sys
import time
import uuid

import nats
from nats.errors import NoRespondersError, TimeoutError

PHASES = ["init", "update_clients", "update_servers", "standby"]
# What passes by itself: nodes, keys and members that have not followed the step before yet.
WAITS = {"nodes_lagging", "members_lagging", "key_missing", "publication_time", "log_unavailable"}


def uuid7():
    """Ids of commands carry their time (RFC 9562): one from another day is refused."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 1_000_000) << 80 | random
    value = value & ~(0xF << 76) | 7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 2 << 62))


def token(user):
    """A user's name as one word of a subject."""
    return user.replace("_", "U").replace(".", "_")


def subject(cluster, user, command):
    return f"carousel.v1.{token(cluster)}.cmd.user-{token(user)}.{command}"


async def send(nc, where, body):
    """One command. What was not answered may have been heard: the same message again is the same command."""
    for attempt in range(5):
        try:
            answer = await nc.request(where, json.dumps(body).encode(), timeout=30)
        except (TimeoutError, NoRespondersError):
            await asyncio.sleep(2**attempt)
            continue
        document = json.loads(answer.data)
        is_no = bool(answer.headers and answer.headers.get("Nats-Service-Error-Code"))
        return is_no, document
    print(f"nobody answers on {where}: does `carousel serve` run, and may this user publish there?", file=sys.stderr)
    sys.exit(4)


async def enter(nc, where, authority_type, phase, reason):
    """Enters a phase, and waits while somebody lags."""
    told = None
    while True:
        # A refusal is on record under its id: whoever tries again makes a new one.
        body = {"id": uuid7(), "type": authority_type, "manual": True, "phase": phase, "reason": reason}
        is_no, document = await send(nc, where, body)
        if not is_no:
            return document
        if document["code"] not in WAITS:
            print(f"refused: {document['code']}: {document['detail']}", file=sys.stderr)
            sys.exit(3)
        if document["detail"] != told:
            told = document["detail"]
            print(f"waiting: {told}", file=sys.stderr)
        await asyncio.sleep(document.get("retry_after_s") or 1)


async def main(url, cluster, user, authority_type, reason):
    # An inbox of its own, so that nobody else hears the answers.
    nc = await nats.connect(url, inbox_prefix=f"_INBOX_{token(user)}")
    where = subject(cluster, user, "rotate")
    for phase in PHASES:
        document = await enter(nc, where, authority_type, phase, reason)
        print(f"@{document['position']} {phase}", flush=True)
        if document.get("warning"):
            print(f"warning: {document['warning']}", file=sys.stderr)
    await nc.close()


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
