"""The queues and the tasks that serve them."""

CLASSIFY, DELIVER = "classify", "deliver"
QUEUES = (CLASSIFY, DELIVER)


def task_name(queue: str) -> str:
    """Return the name of the task that serves a queue."""
    return f"reticula.{queue}"
