"""redis-py with plain traffic only, for the smallest of budgets: plain.py PORT"""

import sys
import threading

import redis
from checks import DEADLINE, equal


def main():
    port = int(sys.argv[1])
    failures = []

    def work(number):
        try:
            with redis.Redis(port=port, db=number % 3, protocol=2 + number % 2, decode_responses=True) as r:
                for turn in range(20):
                    key = f"plain:{number}"
                    equal(r.set(key, turn), True)
                    with r.pipeline(transaction=turn % 2 == 0) as pipe:
                        equal(pipe.get(key).incr(key).execute(), [str(turn), turn + 1])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    equal(failures, [])
    for db in range(3):
        with redis.Redis(port=port, db=db) as r:
            equal(r.dbsize(), 4)


main()
