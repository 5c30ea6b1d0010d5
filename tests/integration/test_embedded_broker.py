"""The embedded broker: begun by several at once, and after somebody was killed in mid write."""

import threading
from pathlib import Path

import pytest

from worker.broker import Broker
from worker.embedded import Channel, Transport
from worker.queues import CLASSIFY, QUEUES
from worker.settings import Settings


def a_new_process(folder: Path) -> Broker:
    """A broker that knows of no binding yet, as in a process that has just begun."""
    Transport.global_state.clear()
    return Broker(Settings(data_dir=folder))


def waits(broker: Broker, queue: str) -> bool:
    with broker.celery.connection_for_read() as connection:
        return connection.default_channel.basic_get(queue) is not None


@pytest.mark.parametrize("content", [b"", b'[["classify", ""', b'{"a": 1}'])
def test_half_a_table_of_bindings_is_made_anew(tmp_path: Path, content: bytes) -> None:
    broker = a_new_process(tmp_path)
    broker.wake(CLASSIFY)
    (table,) = (tmp_path / "broker" / "control").glob("*.exchange")
    whole = table.read_bytes()
    assert waits(broker, CLASSIFY)
    table.write_bytes(content)
    again = a_new_process(tmp_path)
    again.wake(CLASSIFY)
    assert table.read_bytes() == whole
    assert waits(again, CLASSIFY)


def test_several_may_begin_at_once(tmp_path: Path) -> None:
    problems: list[Exception] = []

    def bind(channel: Channel, queue: str, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            channel._queue_bind("classify", "", queue, queue)
        except Exception as error:
            problems.append(error)

    for number in range(30):
        broker = a_new_process(tmp_path / str(number))
        broker.prepare()
        with broker.celery.connection_for_write() as connection:
            channels = [connection.channel() for _ in range(3 * len(QUEUES))]
            barrier = threading.Barrier(len(channels))
            threads = [
                threading.Thread(target=bind, args=(channel, QUEUES[index % len(QUEUES)], barrier))
                for index, channel in enumerate(channels)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(each.queue for each in channels[0].get_table("classify")) == sorted(QUEUES)
    assert problems == []
