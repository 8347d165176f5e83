"""An application over redis-py that Weir has no room for: refused.py PORT RESP-VERSION SECONDS

It asks again at once whenever the library gives up, which is the worst that an
application does. Prints how often the library gave up; who runs this counts the
connections.
"""

import sys
import time

import redis
from checks import fails


def main():
    port, protocol, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    r = redis.Redis(host="127.0.0.1", port=port, protocol=protocol)
    end = time.monotonic() + seconds
    given_up = 0
    while time.monotonic() < end:
        fails(redis.ConnectionError, "max number of clients reached", r.get, "key")
        given_up += 1
    print(given_up)


main()
