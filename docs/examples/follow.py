#!/usr/bin/env python3
"""Follows the log: every event from a position on, in order, none left out, over restarts.

    follow.py NATS_URL CLUSTER USER FROM [--once] [--type=PREFIX]
    follow.py nats://deploy:PASSWORD@127.0.0.1:4222 acme.cluster deploy 1 --type=rotation.

The place is kept by the server in a durable consumer with the name of USER: a program that is started again goes on where
it was, and FROM counts the first time only. Needs nats-py. With --once it ends at the log's end; with --type only such
events are said. Ends with 4 where an event is missing: then nothing that follows may be relied on.
"""

import argparse
import asyncio
import json
import sys

import nats
from nats.errors import TimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


def token(name):
    """A name as one word of a subject."""
    return name.replace("_", "U").replace(".", "_")


def say(position, event, prefix):
    kind = event["type"].removeprefix("carousel.").removesuffix(".v1")
    if kind.startswith(prefix):
        print(f"@{position} {event['time']} {kind} {event['authtype']}/{event['authid']}", flush=True)


async def main(of):
    user = token(of.user)
    nc = await nats.connect(of.url, inbox_prefix=f"_INBOX_{user}")
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=of.start,
        ack_policy=AckPolicy.EXPLICIT,
        # One at a time: the next comes when this one is done, also after it had to be sent again.
        max_ack_pending=1,
    )
    stream = f"CAROUSEL_EVENTS_{token(of.cluster)}"
    follower = await nc.jetstream().pull_subscribe("", durable=user, stream=stream, config=config)
    last = None
    while True:
        try:
            messages = await follower.fetch(1, timeout=5)
        except TimeoutError:
            if of.once:
                break
            continue
        for message in messages:
            position = message.metadata.sequence.stream
            if last is not None and position > last + 1:
                print(f"the events after @{last} and before @{position} are missing", file=sys.stderr)
                sys.exit(4)
            # What comes twice was done before: its acknowledgement got lost.
            if last is None or position > last:
                say(position, json.loads(message.data), of.type)
                last = position
            # Only now is it behind us: a program that dies before this line gets it again.
            await message.ack_sync()
        if of.once and messages and messages[-1].metadata.num_pending == 0:
            break
    await nc.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", metavar="NATS_URL")
    parser.add_argument("cluster", metavar="CLUSTER")
    parser.add_argument("user", metavar="USER")
    parser.add_argument("start", metavar="FROM", type=int)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--type", default="", metavar="PREFIX")
    asyncio.run(main(parser.parse_args()))
