"""An application that works until a file is there: host, port, file.

Prints how many rounds it has done; fails with the first error that reaches it.
"""

import os
import sys
import threading

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

host, port, end = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = redis.Redis(
    host=host,
    port=port,
    decode_responses=True,
    socket_timeout=20,
    retry=Retry(ExponentialBackoff(cap=1, base=0.01), 5),
    retry_on_error=[redis.exceptions.ConnectionError],
)
rounds = []
problems = []


def work(name):
    done = 0
    try:
        while not os.path.exists(end) and not problems:
            key, value = f"{name}:{done % 10}", str(done)
            client.set(key, value)
            assert client.get(key) == value
            with client.pipeline(transaction=True) as pipe:
                pipe.set(key, value).get(key).strlen(key)
                assert pipe.execute() == [True, value, len(value)]
            # How much is done so far, for whoever watches.
            client.append("rounds", ".")
            done += 1
    except Exception as problem:  # noqa: BLE001: whatever it is, it is what is tested
        problems.append(f"{name}: {problem!r}")
    rounds.append(done)


threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if problems:
    sys.exit("\n".join(problems))
print(sum(rounds))
