"""redis-py's asyncio client: asyncio_client.py PORT RESP-VERSION"""

import asyncio
import sys

import redis.asyncio as redis
from checks import DEADLINE, equal


async def many_tasks(r):
    async def work(number):
        for turn in range(20):
            key = f"aio:{number}"
            equal(await r.set(key, turn), True)
            equal(await r.get(key), str(turn))
            await r.incr("aio:sum")

    await asyncio.gather(*(work(number) for number in range(50)))
    equal(await r.get("aio:sum"), "1000")


async def pipelines(r):
    async with r.pipeline(transaction=True) as pipe:
        equal(await pipe.set("aio:p", 1).incr("aio:p").execute(), [True, 2])
    async with r.pipeline(transaction=False) as pipe:
        equal(await pipe.get("aio:p").get("aio:absent").execute(), ["2", None])


async def subscriptions(r):
    async with r.pubsub() as p:
        await p.subscribe("aio:channel")
        first = await p.get_message(timeout=DEADLINE)
        equal(first["type"], "subscribe")
        equal(await r.publish("aio:channel", "hello"), 1)
        message = await p.get_message(timeout=DEADLINE)
        equal((message["type"], message["data"]), ("message", "hello"))


async def a_cancelled_pop_takes_nothing(r):
    waiting = asyncio.create_task(r.blpop("aio:queue", timeout=DEADLINE))
    while (await r.info("clients"))["blocked_clients"] == 0:
        await asyncio.sleep(0.005)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    while (await r.info("clients"))["blocked_clients"] != 0:
        await asyncio.sleep(0.005)
    equal(await r.rpush("aio:queue", "kept"), 1)
    equal(await r.llen("aio:queue"), 1)
    equal(list(await r.blpop("aio:queue", timeout=5)), ["aio:queue", "kept"])


async def main():
    port, protocol = int(sys.argv[1]), int(sys.argv[2])
    async with redis.Redis(port=port, protocol=protocol, decode_responses=True) as r:
        await r.flushall()
        for scenario in (many_tasks, pipelines, subscriptions, a_cancelled_pop_takes_nothing):
            print(scenario.__name__, flush=True)
            await scenario(r)


asyncio.run(main())
