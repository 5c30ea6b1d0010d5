"""The faults: what is done, and in which stage an exam must stand for it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from redis import Redis as RedisClient
from redis.exceptions import RedisError
from sqlalchemy import exists, select

from tests.chaos.plant import Plant
from tests.chaos.sender import Sender
from tests.servers import Server
from worker.errors import UnavailableError
from worker.tables import Delivery, Series

STAGES = ("receiving", "assembling", "queued", "classifying", "building", "delivering")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong while an exam stands in `stage`.

    servers: only where there are servers. small_disk: only where the spool has a disk of its own.
    """

    stage: str
    name: str
    do: Callable[[Plant], None]
    servers: bool = False
    small_disk: bool = False


def _flush_redis(plant: Plant) -> None:
    if plant.redis is not None:
        client = RedisClient.from_url(plant.redis.url)
        try:
            client.flushall()
        except RedisError:
            pass
        finally:
            client.close()


def _stop_redis(plant: Plant) -> None:
    if plant.redis is not None:
        plant.redis.stop()
        time.sleep(1)
        plant.redis.start_again()


def _stop_postgres(plant: Plant) -> None:
    if plant.postgres is not None:
        plant.postgres.halt()
        time.sleep(1)
        plant.postgres.start_again()


def _kill_server(name: Literal["redis", "postgres", "orthanc"]) -> Callable[[Plant], None]:
    def do(plant: Plant) -> None:
        server: Server | None = getattr(plant, name)
        if server is not None:
            server.kill()
            time.sleep(1)
            server.start_again()

    return do


def _for_a_while(mode: str, seconds: float) -> Callable[[Plant], None]:
    def do(plant: Plant) -> None:
        plant.to_pacs.mode = mode
        plant.to_pacs.cut()
        time.sleep(seconds)
        plant.to_pacs.mode = "pass"

    return do


def _cut(plant: Plant) -> None:
    plant.to_us.cut()


def _cut_delivery(plant: Plant) -> None:
    plant.to_pacs.cut()


def _fill_disk(plant: Plant) -> None:
    plant.fill_disk(1.5)


FAULTS = (
    Fault("receiving", "kill -9 the listener", lambda plant: plant.kill("listener", pool=True)),
    Fault(
        "receiving", "kill -9 the listening processes", lambda plant: plant.kill("listener", pool=True, itself=False)
    ),
    Fault("receiving", "cut the association", _cut),
    Fault("receiving", "fill the disk", _fill_disk, small_disk=True),
    Fault("assembling", "kill -9 the sweep", lambda plant: plant.kill("sweep")),
    Fault("assembling", "stop PostgreSQL", _stop_postgres, servers=True),
    Fault("assembling", "kill -9 PostgreSQL", _kill_server("postgres"), servers=True),
    Fault("assembling", "kill -9 the listener", lambda plant: plant.kill("listener", pool=True)),
    Fault("queued", "flush Redis", _flush_redis, servers=True),
    Fault("queued", "stop Redis", _stop_redis, servers=True),
    Fault("queued", "kill -9 Redis", _kill_server("redis"), servers=True),
    Fault("queued", "kill -9 the sweep", lambda plant: plant.kill("sweep")),
    Fault("queued", "kill -9 the classifying worker", lambda plant: plant.kill("classify")),
    Fault(
        "classifying", "kill -9 the classifying process", lambda plant: plant.kill("classify", pool=True, itself=False)
    ),
    Fault("classifying", "kill -9 the classifying worker", lambda plant: plant.kill("classify")),
    Fault("classifying", "kill -9 PostgreSQL", _kill_server("postgres"), servers=True),
    Fault("building", "kill -9 the delivering process", lambda plant: plant.kill("deliver", pool=True, itself=False)),
    Fault("building", "kill -9 the delivering worker", lambda plant: plant.kill("deliver")),
    Fault("delivering", "kill -9 the delivering process", lambda plant: plant.kill("deliver", pool=True, itself=False)),
    Fault("delivering", "kill -9 the PACS", _kill_server("orthanc"), servers=True),
    Fault("delivering", "the PACS refuses", _for_a_while("refuse", 2)),
    Fault("delivering", "the PACS is slow, then cuts", _for_a_while("delay", 2)),
    Fault("delivering", "cut the delivery", _cut_delivery),
)


def stands_in(stage: str, plant: Plant, sender: Sender) -> bool:
    """Whether an exam stands in a stage at this moment."""
    if stage == "receiving":
        return sender.sending > 0
    conditions = {
        "assembling": Series.state == "receiving",
        "queued": Series.state == "queued",
        "classifying": Series.state == "classifying",
        "building": (Series.state == "classified") & ~exists().where(Delivery.series_id == Series.id),
        "delivering": (Series.state == "classified")
        & exists().where(Delivery.series_id == Series.id, Delivery.state == "pending"),
    }
    try:
        with plant.database.read() as session:
            return session.scalar(select(Series.id).where(conditions[stage]).limit(1)) is not None
    except UnavailableError:
        return False
