"""The application that celery_jobs.py starts workers of; CELERY_REDIS says where."""

import os

import redis
from celery import Celery

url = os.environ["CELERY_REDIS"]
app = Celery("celery_tasks", broker=url, backend=url)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=1,
    task_acks_late=True,
)
counts = redis.Redis.from_url(url)


@app.task(bind=True, max_retries=2)
def record(self, value, fails_first=False):
    if fails_first and self.request.retries == 0:
        raise self.retry(countdown=0.2)
    counts.hincrby("celery:done", self.request.id)
    return value


@app.task(bind=True)
def total(self, values):
    counts.hincrby("celery:done", self.request.id)
    return sum(values)
