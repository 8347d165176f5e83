"""redis-py with its default settings: redis_py.py PORT RESP-VERSION

Each function is one thing that applications do. Each takes a function that makes
a client and cleans up nothing: keys are its own.
"""

import sys
import threading

import redis
from checks import DEADLINE, equal, fails, run, wait_until


def values_of_every_type(connect, _protocol):
    r = connect()
    equal(r.set("py:string", "value", ex=100), True)
    equal(r.get("py:string"), "value")
    equal(r.ttl("py:string") in (99, 100), True)
    equal(r.get("py:absent"), None)
    binary = connect(decode_responses=False)
    raw = bytes(range(256)) * 5 + b"\r\n$-1\r\n"
    equal(binary.set("py:binary", raw), True)
    equal(binary.get("py:binary"), raw)
    large = b"0123456789abcdef" * 65536  # 1 MiB: streams over a lease
    equal(binary.set("py:large", large), True)
    equal(binary.get("py:large") == large, True)
    equal(r.incr("py:counter", 5), 5)
    equal(r.incrbyfloat("py:float", 1.5), 1.5)
    equal(r.rpush("py:list", *map(str, range(100))), 100)
    equal(r.lrange("py:list", 0, -1), [str(n) for n in range(100)])
    equal(r.hset("py:hash", mapping={"a": "1", "b": "2"}), 2)
    equal(r.hgetall("py:hash"), {"a": "1", "b": "2"})
    equal(r.hmget("py:hash", "a", "c"), ["1", None])
    equal(r.sadd("py:set", "x", "y"), 2)
    equal(r.smembers("py:set"), {"x", "y"})
    equal(r.zadd("py:zset", {"one": 1, "two and a half": 2.5}), 2)
    scores = r.zrange("py:zset", 0, -1, withscores=True)
    equal([tuple(pair) for pair in scores], [("one", 1.0), ("two and a half", 2.5)])
    equal(r.zscore("py:zset", "two and a half"), 2.5)
    first = r.xadd("py:stream", {"field": "value"}, id="1-1")
    equal(first, "1-1")
    equal(r.xrange("py:stream"), [("1-1", {"field": "value"})])
    equal(r.geoadd("py:geo", (13.361389, 38.115556, "Palermo")), 1)
    equal(r.mget(["py:counter", "py:absent", "py:string"]), ["5", None, "value"])
    equal(r.type("py:zset"), "zset")
    equal(r.delete("py:string", "py:binary", "py:large", "py:geo"), 4)


def errors_are_the_servers(connect, _protocol):
    r = connect()
    r.set("py:text", "text")
    fails(redis.ResponseError, "not an integer", r.incr, "py:text")
    fails(redis.ResponseError, "WRONGTYPE", r.lpush, "py:text", "x")
    fails(redis.ResponseError, "unknown command", r.execute_command, "NONSENSE", "a")
    fails(redis.ResponseError, "wrong number of arguments", r.execute_command, "GET")
    equal(r.get("py:text"), "text")


def pool_with_many_threads(connect, _protocol):
    r = connect()
    failures = []

    def work(number):
        try:
            for turn in range(50):
                key = f"py:thread:{number}"
                equal(r.set(key, f"{number}:{turn}"), True)
                equal(r.get(key), f"{number}:{turn}")
                r.incr("py:threads")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    equal(failures, [])
    equal(r.get("py:threads"), "1000")


def pipelines(connect, _protocol):
    r = connect()
    plain = r.pipeline(transaction=False)
    for number in range(1000):
        plain.set(f"py:pipe:{number}", number)
        plain.get(f"py:pipe:{number}")
    equal(plain.execute(), [x for n in range(1000) for x in (True, str(n))])

    block = r.pipeline(transaction=True)
    block.set("py:block", 1).incr("py:block").lpush("py:block", "x").incr("py:block")
    replies = block.execute(raise_on_error=False)
    equal(replies[:2], [True, 2])
    equal("WRONGTYPE" in str(replies[2]), True)
    equal(replies[3], 3)
    equal(r.pipeline().execute(), [])

    broken = r.pipeline(transaction=True)
    broken.set("py:block", 100).execute_command("GET")
    fails(redis.ResponseError, "wrong number of arguments", broken.execute)
    equal(r.get("py:block"), "3")


def watch_and_compare(connect, _protocol):
    r, other = connect(), connect()
    r.set("py:watched", 1)
    with r.pipeline() as pipe:
        pipe.watch("py:watched")
        equal(pipe.get("py:watched"), "1")
        other.set("py:watched", 10)
        pipe.multi()
        pipe.incr("py:watched")
        fails(redis.WatchError, "", pipe.execute)
    equal(r.get("py:watched"), "10")
    with r.pipeline() as pipe:
        pipe.watch("py:watched")
        pipe.unwatch()
        pipe.get("py:watched")
        equal(pipe.execute(), ["10"])

    # Ten threads that all add to one number, by WATCH alone.
    def add(number):
        for _ in range(10):
            r.transaction(
                lambda pipe: (
                    value := int(pipe.get("py:contended") or 0),
                    pipe.multi(),
                    pipe.set("py:contended", value + 1),
                ),
                "py:contended",
            )

    threads = [threading.Thread(target=add, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    equal(r.get("py:contended"), "100")


def publish_and_subscribe(connect, protocol):
    r = connect()
    p = r.pubsub()
    p.subscribe("py:channel")
    p.psubscribe("py:ch*")

    def message():
        return wait_until("a message", lambda: p.get_message(timeout=1))

    first = message()
    equal((first["type"], first["channel"], first["data"]), ("subscribe", "py:channel", 1))
    second = message()
    equal((second["type"], second["channel"], second["data"]), ("psubscribe", "py:ch*", 2))
    equal(r.publish("py:channel", "hello"), 2)
    got = message()
    equal((got["type"], got["data"]), ("message", "hello"))
    got = message()
    equal((got["type"], got["pattern"], got["data"]), ("pmessage", "py:ch*", "hello"))
    if protocol == 2:  # with RESP3 the library takes the plain reply for a message's parts
        p.ping("still there")
        equal(message()["data"], "still there")
    p.unsubscribe("py:channel")
    equal(message()["type"], "unsubscribe")
    p.punsubscribe()
    equal(message()["type"], "punsubscribe")
    # What the subscription used serves others again.
    p.close()
    equal(r.publish("py:channel", "nobody"), 0)


def scripts(connect, _protocol):
    r = connect()
    double = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)")
    r.script_flush()
    equal(double(keys=["py:script"], args=[21]), 42)  # NOSCRIPT, then loads it
    equal(double(keys=["py:script"], args=[1]), 44)
    equal(r.eval("return {1, 'two', {3, false}}", 0), [1, "two", [3, None]])
    equal(r.evalsha(double.sha, 1, "py:script", 0), 44)
    fails(redis.ResponseError, "oops", r.eval, "return redis.error_reply('ERR oops')", 0)
    with r.pipeline() as pipe:
        double(keys=["py:script"], args=[1], client=pipe)
        equal(pipe.execute(), [46])


def blocking_pops(connect, protocol):
    r, other = connect(), connect()
    as_list = lambda value: list(value) if value else value
    equal(r.blpop("py:queue", timeout=0.1), None)
    r.rpush("py:queue", "ready")
    equal(as_list(r.blpop(["py:empty", "py:queue"], timeout=5)), ["py:queue", "ready"])

    results = []
    waiter = threading.Thread(target=lambda: results.append(other.blpop("py:queue", timeout=DEADLINE)))
    waiter.start()
    wait_until("a blocked client", lambda: r.info("clients")["blocked_clients"] == 1)
    equal(r.rpush("py:queue", "later"), 1)
    waiter.join(DEADLINE)
    equal([as_list(result) for result in results], [["py:queue", "later"]])
    equal(r.blmove("py:queue", "py:done", timeout=0.1), None)
    r.zadd("py:zqueue", {"m": 2})
    popped = r.bzpopmin("py:zqueue", timeout=5)
    equal(list(popped), ["py:zqueue", "m", 2.0])
    r.xadd("py:events", {"n": "1"}, id="1-1")
    got = r.xread({"py:events": "0"}, block=5000)
    entries = got["py:events"] if isinstance(got, dict) else dict(map(tuple, got))["py:events"]
    while isinstance(entries[0], list):  # one more level with RESP3
        entries = entries[0]
    equal(entries, [("1-1", {"n": "1"})])
    equal(r.wait(0, 100), 0)


def databases(connect, _protocol):
    zero, five = connect(), connect(db=5)
    zero.set("py:where", "zero")
    five.set("py:where", "five")
    equal((zero.get("py:where"), five.get("py:where")), ("zero", "five"))
    with connect(single_connection_client=True) as one:
        equal(one.select(5), True)
        equal(one.get("py:where"), "five")
        equal(one.select(0), True)
        equal(one.get("py:where"), "zero")
        fails(redis.ResponseError, "out of range", one.select, 99999)
        equal(one.get("py:where"), "zero")
    fails(redis.ResponseError, "out of range", connect(db=99999).ping)


def what_a_client_is(connect, protocol):
    one = connect(client_name="py-client", single_connection_client=True)
    equal(one.client_getname(), "py-client")
    info = one.client_info()
    equal(info["name"], "py-client")
    equal(int(info["id"]), one.client_id())
    equal(int(info["db"]), 0)
    version = tuple(map(int, one.info("server")["redis_version"].split(".")[:2]))
    if version >= (7, 0):
        equal(int(info["resp"]), protocol)
    if version >= (7, 2):
        equal(info["lib-name"].startswith("redis-py"), True)
    names = [client["name"] for client in one.client_list()]
    equal(names.count("py-client"), 1)
    other = connect(client_name="py-victim", single_connection_client=True)
    victim = other.client_id()
    equal(one.client_kill_filter(_id=victim), 1)
    equal(other.ping(), True)  # the library connects anew
    equal(other.client_id() != victim, True)
    info = one.info()
    equal(info.get("redis_mode", info.get("server_mode")), "standalone")  # Redis, Valkey
    equal("role" in one.info("replication"), True)
    equal(one.config_get("maxclients") != {}, True)
    equal(one.command_count() > 200, True)
    equal(one.echo("echo"), "echo")
    equal(one.dbsize() >= 0, True)


def scanning(connect, _protocol):
    r = connect()
    r.mset({f"py:scan:{n}": n for n in range(500)})
    found = sorted(r.scan_iter("py:scan:*", count=50))
    equal(found, sorted(f"py:scan:{n}" for n in range(500)))
    r.hset("py:scan", mapping={str(n): n for n in range(1000)})
    equal(len(dict(r.hscan_iter("py:scan"))), 1000)


def monitor(connect, _protocol):
    r = connect()
    with r.monitor() as lines:
        r.set("py:monitored", "yes")
        seen = wait_until("the command", lambda: (line := lines.next_command())["command"].startswith("SET") and line)
        equal(seen["command"], "SET py:monitored yes")


def client_side_cache(connect, protocol):
    if protocol == 2:
        return
    other = connect()
    version = tuple(map(int, other.info("server")["redis_version"].split(".")[:2]))
    if version < (7, 4):  # the library refuses older ones
        return
    r = connect(cache_config=redis.cache.CacheConfig())
    other.set("py:cached", "old")
    equal(r.get("py:cached"), "old")
    equal(r.get("py:cached"), "old")
    equal(r.get_cache().size, 1)
    other.set("py:cached", "new")
    wait_until("the invalidation", lambda: r.get("py:cached") == "new")


def main():
    port, protocol = int(sys.argv[1]), int(sys.argv[2])

    def connect(**options):
        options = {"decode_responses": True, "protocol": protocol, **options}
        return redis.Redis(host="127.0.0.1", port=port, **options)

    connect().flushall()
    scenarios = [
        values_of_every_type, errors_are_the_servers, pool_with_many_threads, pipelines,
        watch_and_compare, publish_and_subscribe, scripts, blocking_pops, databases,
        what_a_client_is, scanning, monitor, client_side_cache,
    ]
    run(scenarios, connect, protocol)


main()
