"""The work that the jobs of rq_jobs.py do."""

from rq import get_current_job


def record(value, fails_first=False):
    """Counts that this job was done; its first try may fail."""
    job = get_current_job()
    tries = job.connection.incr(f"rq:tries:{job.id}")
    if fails_first and tries == 1:
        raise RuntimeError("the first try fails")
    job.connection.hincrby("rq:done", job.id)
    return value
