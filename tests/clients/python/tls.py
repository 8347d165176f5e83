"""redis-py over TLS: PORT CA CERTIFICATE KEY."""

import sys
import threading

import redis

port, ca, certificate, key = sys.argv[1:]


def client(**more):
    return redis.Redis(
        host="localhost", port=int(port), ssl=True, ssl_ca_certs=ca, ssl_check_hostname=True, **more
    )


shown = {"ssl_certfile": certificate, "ssl_keyfile": key}
mine = client(**shown)
assert mine.ping()
pipeline = mine.pipeline(transaction=False)
for number in range(1000):
    pipeline.set(f"key:{number}", number)
for number in range(1000):
    pipeline.get(f"key:{number}")
replies = pipeline.execute()
assert replies == [True] * 1000 + [str(number).encode() for number in range(1000)]
with mine.pipeline() as transaction:
    transaction.set("a", 1).incr("a").get("a")
    assert transaction.execute() == [True, 2, b"2"]
large = bytes(range(256)) * 20_000
mine.set("large", large)
assert mine.get("large") == large

failed = []


def visit(number):
    try:
        for _ in range(20):
            other = client(**shown)
            assert other.get(f"key:{number}") == str(number).encode()
            other.close()
    except Exception as error:  # told to the main thread
        failed.append(error)


threads = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed

try:
    client().ping()
except redis.ConnectionError:
    pass
else:
    raise SystemExit("a client without a certificate was let in")
