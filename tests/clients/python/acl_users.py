"""redis-py with users and passwords: acl_users.py PORT

The server has the password "admin-password" for its user "default".
"""

import sys
import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from checks import DEADLINE, equal, fails, run


def without_a_password(connect, protocol):
    anonymous = connect(password=None, protocol=protocol)
    fails(redis.AuthenticationError, "", anonymous.get, "acl:key")


def wrong_passwords(connect, protocol):
    fails(redis.AuthenticationError, "", connect(password="wrong", protocol=protocol).ping)
    fails(redis.AuthenticationError, "", connect(username="nobody", password="x", protocol=protocol).ping)


def everyone_runs_as_oneself(connect, protocol):
    admin = connect(protocol=protocol)
    equal(admin.acl_whoami(), "default")
    for name in ("alice", "bob"):
        admin.acl_setuser(
            name, enabled=True, reset=True, reset_channels=True, passwords=[f"+{name}-password"],
            keys=[f"{name}:*"], channels=[f"{name}:*"], categories=["+@all"], commands=["-flushall"],
        )

    failures = []

    def work(number, name, other):
        try:
            r = connect(username=name, password=f"{name}-password", protocol=protocol)
            for turn in range(50):
                equal(r.acl_whoami(), name)
                equal(r.set(f"{name}:key:{number}", turn), True)
                equal(r.get(f"{name}:key:{number}"), str(turn))
                fails(redis.exceptions.NoPermissionError, "permissions", r.get, f"{other}:key")
            fails(redis.exceptions.NoPermissionError, "permissions", r.flushall)
            fails(redis.exceptions.NoPermissionError, "permissions", r.publish, f"{other}:news", "x")
            with r.pipeline() as pipe:
                pipe.watch(f"{name}:key:{number}")
                pipe.multi()
                pipe.execute_command("ACL", "WHOAMI")
                pipe.incr(f"{name}:sum")
                equal(pipe.execute()[0], name)
            equal(r.blpop(f"{name}:queue", timeout=0.05), None)
            subscription = r.pubsub()
            subscription.subscribe(f"{name}:news")
            equal(subscription.get_message(timeout=DEADLINE)["type"], "subscribe")
            subscription.close()
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(number, *pair))
        for number, pair in enumerate([("alice", "bob"), ("bob", "alice")] * 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    equal(failures, [])


def one_connection_several_users(connect, protocol):
    with connect(protocol=protocol, single_connection_client=True) as r:
        equal(r.acl_whoami(), "default")
        equal(r.auth("alice-password", "alice"), True)
        equal(r.acl_whoami(), "alice")
        equal(r.auth("bob-password", "bob"), True)
        equal(r.acl_whoami(), "bob")


def who_may_not_reach_other_clients_does_not(connect, protocol):
    admin = connect(protocol=protocol, single_connection_client=True)
    admin.acl_setuser(
        "dave", enabled=True, reset=True, passwords=["+dave-password"], keys=["*"],
        categories=["+@all"], commands=["-client", "+client|id"],
    )
    victim = admin.client_id()
    dave = connect(username="dave", password="dave-password", protocol=protocol)
    equal(dave.set("dave:key", 1), True)
    denied = redis.exceptions.NoPermissionError
    fails(denied, "client", dave.client_list)
    fails(denied, "client", dave.client_kill_filter, _id=victim)
    fails(denied, "client", dave.client_kill, "127.0.0.1:1")
    fails(denied, "client", dave.client_unblock, victim)
    equal(admin.client_id(), victim)  # nobody closed it
    equal(admin.client_kill_filter(_id=dave.client_id()), 1)
    equal(admin.client_unblock(victim), 0)


def a_new_password_counts_at_once(connect, protocol):
    admin = connect(protocol=protocol)
    admin.acl_setuser("carol", enabled=True, reset=True, passwords=["+first"], keys=["*"], categories=["+@all"])
    equal(connect(username="carol", password="first", protocol=protocol).acl_whoami(), "carol")
    admin.acl_setuser("carol", enabled=True, reset=True, passwords=["+second"], keys=["*"], categories=["+@all"])
    fails(redis.AuthenticationError, "", connect(username="carol", password="first", protocol=protocol).ping)
    equal(connect(username="carol", password="second", protocol=protocol).acl_whoami(), "carol")


def main():
    port = int(sys.argv[1])

    def connect(**options):
        # By default the library tries a wrong password eleven times.
        once = Retry(NoBackoff(), 0)
        options = {"password": "admin-password", "decode_responses": True, "retry": once, **options}
        return redis.Redis(host="127.0.0.1", port=port, **options)

    scenarios = [
        without_a_password, wrong_passwords, everyone_runs_as_oneself,
        one_connection_several_users, a_new_password_counts_at_once,
        who_may_not_reach_other_clients_does_not,
    ]
    for protocol in (2, 3):
        run(scenarios, connect, protocol)


main()
