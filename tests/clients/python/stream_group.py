"""A consumer group on a stream, with news over pub/sub: stream_group.py PORT CONSUMERS JOBS"""

import asyncio
import sys

import redis
from checks import DEADLINE, equal
from redis.asyncio import Redis

port, consumers, jobs = (int(argument) for argument in sys.argv[1:4])
SUBSCRIBERS = 10


def connect():
    return Redis(port=port, decode_responses=True, socket_timeout=DEADLINE)


async def take(client, name):
    """The next jobs for this consumer. Too many may wait already: that is not an error."""
    try:
        found = await client.xreadgroup("group", name, {"jobs": ">"}, count=5, block=300)
    except redis.ResponseError as error:
        assert "command not executed" in str(error), error
        return []
    streams = found.items() if isinstance(found, dict) else found
    return [entry for _, entries in streams for entry in flat(entries)]


def flat(entries):
    """RESP3 puts the entries of a stream into one more list."""
    return entries[0] if entries and isinstance(entries[0], list) else entries


async def do(client, entries):
    for id, fields in entries:
        async with client.pipeline(transaction=True) as block:
            block.hincrby("jobs:done", fields["job"])
            block.xack("jobs", "group", id)
            block.publish("done", fields["job"])
            await block.execute()


async def consume(name, finished):
    async with connect() as client:
        while not finished.is_set():
            await do(client, await take(client, name))


async def vanish():
    """Takes jobs and never does them."""
    async with connect() as client:
        while not await take(client, "vanished"):
            pass


async def take_over(finished):
    """Does what others have left behind."""
    async with connect() as client:
        while not finished.is_set():
            answer = await client.xautoclaim("jobs", "group", "heir", 8_000, count=100)
            await do(client, answer[1])
            await asyncio.sleep(0.2)


async def subscribe(ready, finished):
    """Hears of each job once."""
    heard = []
    async with connect() as client, client.pubsub() as subscription:
        await subscription.subscribe("done")
        while not finished.is_set() or len(heard) < jobs:
            message = await subscription.get_message(timeout=0.5)
            if message is None:
                continue
            if message["type"] == "subscribe":
                ready.set()
            else:
                heard.append(message["data"])
        await subscription.unsubscribe("done")
    return heard


async def follow(last, finished):
    """Reads the stream without a group, as it grows."""
    seen = []
    async with connect() as client:
        while len(seen) < jobs:
            found = await client.xread({"jobs": last}, block=500)
            streams = found.items() if isinstance(found, dict) else found
            for _, entries in streams:
                for id, fields in flat(entries):
                    last = id
                    seen.append(fields["job"])
    return seen


async def main():
    finished = asyncio.Event()
    async with connect() as client:
        await client.xgroup_create("jobs", "group", mkstream=True)
        heard_by = [asyncio.Event() for _ in range(SUBSCRIBERS)]
        listening = [asyncio.create_task(subscribe(ready, finished)) for ready in heard_by]
        for ready in heard_by:
            await ready.wait()
        following = [asyncio.create_task(follow("0", finished)) for _ in range(SUBSCRIBERS)]
        vanished = asyncio.create_task(vanish())
        for number in range(10):
            await client.xadd("jobs", {"job": number})
        await vanished
        working = [asyncio.create_task(consume(f"c{n}", finished)) for n in range(consumers)]
        working.append(asyncio.create_task(take_over(finished)))
        for number in range(10, jobs):
            await client.xadd("jobs", {"job": number})
        while await client.hlen("jobs:done") < jobs:
            for task in working:
                if task.done():
                    await task
            await asyncio.sleep(0.05)
        finished.set()
        await asyncio.gather(*working)
        expected = [str(number) for number in range(jobs)]
        equal(await client.hgetall("jobs:done"), {job: "1" for job in expected})
        equal((await client.xpending("jobs", "group"))["pending"], 0)
        for heard in await asyncio.gather(*listening):
            equal(sorted(heard, key=int), expected)
        for seen in await asyncio.gather(*following):
            equal(seen, expected)


asyncio.run(asyncio.wait_for(main(), 3 * DEADLINE))
