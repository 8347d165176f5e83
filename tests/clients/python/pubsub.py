"""redis-py as a subscriber: pubsub.py PORT REDIS_PORT PROTOCOL"""

import sys
import threading

import redis
from checks import equal, wait_until

port, behind, protocol = (int(argument) for argument in sys.argv[1:4])
connection = {"port": port, "protocol": protocol, "decode_responses": True}


def messages(subscription, count):
    """The next messages that are none of the library's own."""
    found = []
    while len(found) < count:
        message = subscription.get_message(ignore_subscribe_messages=True, timeout=30)
        if message is not None:
            found.append((message["type"], message["channel"], message["data"]))
    return found


def everyday():
    publisher = redis.Redis(**connection)
    subscriptions = []
    for _ in range(20):
        subscription = redis.Redis(**connection).pubsub()
        subscription.subscribe("news")
        subscription.psubscribe("new*")
        subscriptions.append(subscription)
    for subscription in subscriptions:
        equal(subscription.get_message(timeout=30)["type"], "subscribe")
        equal(subscription.get_message(timeout=30)["type"], "psubscribe")
    equal(publisher.publish("news", "hello"), 40)
    equal(publisher.pubsub_numsub("news"), [("news", 20)])
    for subscription in subscriptions:
        equal(
            messages(subscription, 2),
            [("message", "news", "hello"), ("pmessage", "news", "hello")],
        )
        subscription.ping()
        subscription.unsubscribe()
        subscription.punsubscribe()
        subscription.close()


def in_a_thread():
    heard = []
    subscription = redis.Redis(**connection).pubsub()
    subscription.subscribe(threaded=lambda message: heard.append(message["data"]))
    thread = subscription.run_in_thread(sleep_time=0.1, daemon=True)
    publisher = redis.Redis(**connection)
    wait_until("it is subscribed", lambda: publisher.publish("threaded", "0") == 1)
    for number in range(1, 100):
        publisher.publish("threaded", str(number))
    wait_until("all have come", lambda: len(heard) == 100)
    equal(heard, [str(number) for number in range(100)])
    thread.stop()
    thread.join()


def after_a_loss():
    subscription = redis.Redis(**connection).pubsub()
    subscription.subscribe("news")
    equal(subscription.get_message(timeout=30)["type"], "subscribe")
    equal(redis.Redis(port=behind).execute_command("CLIENT", "KILL", "TYPE", "pubsub"), 1)
    # The library comes back and subscribes again by itself when it next reads.
    publisher = redis.Redis(**connection)
    stop = threading.Event()

    def publish():
        while not stop.wait(0.05):
            publisher.publish("news", "again")

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    equal(messages(subscription, 1), [("message", "news", "again")])
    stop.set()
    thread.join()


everyday()
in_a_thread()
after_a_loss()
