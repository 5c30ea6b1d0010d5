"""The queues and the tasks that serve them."""

CLASSIFY, DELIVER, TRAINING = "classify", "deliver", "training"
EXAM_QUEUES = (CLASSIFY, DELIVER)  # what a worker serves unless it is told otherwise
QUEUES = (*EXAM_QUEUES, TRAINING)


def task_name(queue: str) -> str:
    """Return the name of the task that serves a queue."""
    return f"reticula.{queue}"
