"""redis-py with users that only Weir knows: weir_users.py PORT

Weir knows alice with the password "alice-password" and "default" with "default-password".
"""

import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from checks import equal, fails


def main():
    port = int(sys.argv[1])
    for protocol in (2, 3):
        def connect(**options):
            # By default the library tries a wrong password eleven times.
            once = Retry(NoBackoff(), 0)
            return redis.Redis(port=port, protocol=protocol, decode_responses=True, retry=once, **options)

        alice = connect(username="alice", password="alice-password")
        equal(alice.set("users:key", "alice's"), True)
        equal(connect(password="default-password").get("users:key"), "alice's")
        # At Redis everybody is the user that Weir connects as.
        equal(alice.acl_whoami(), "default")
        equal(alice.client_info()["user"], "alice")
        for wrong in ({"username": "alice", "password": "wrong"}, {"password": "alice-password"},
                      {"username": "nobody", "password": "x"}, {"password": "of-redis"}, {}):
            fails(redis.AuthenticationError, "", connect(**wrong).get, "users:key")


main()
