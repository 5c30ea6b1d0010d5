"""`POST /dicom-web/studies`: instances come in by STOW-RS, under the rules and limits of the listener."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from pacs.elements import is_uid
from pacs.intake import Happening, Intake
from pacs.spool import InstanceStore
from pacs.stow import Malformed, PartReader, StoreRequest, as_json, as_xml
from pacs.stow.answer import JSON, XML
from worker.web.access import Access

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60
_ANSWERS = {JSON: as_json, XML: as_xml}
_PACE = 1 << 20

_BODY = {"schema": {"type": "string", "format": "binary"}}
_DATASET = {name: {"schema": {"type": "object"}} for name in _ANSWERS}
_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {'multipart/related; type="application/dicom"': _BODY, "application/dicom": _BODY},
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All instances are stored, durably.", "content": _DATASET},
    202: {"description": "Some instances are stored; the others are listed with their reasons.", "content": _DATASET},
    400: {"description": "The request cannot be read."},
    401: {"description": "A bearer token is missing or not known."},
    403: {"description": "Nobody but this machine may ask."},
    406: {"description": "Answers are made as JSON or XML of DICOM only."},
    408: {"description": "The body came too slowly."},
    409: {"description": "No instance was stored; they are listed with their reasons.", "content": _DATASET},
    415: {"description": "The body is of a type, or encoded in a way, that is not stored."},
    503: {"description": "There is no room, or too much is under way: try again after Retry-After."},
}


@dataclass(frozen=True)
class StoreLimits:
    """What one sender may cost. Sizes in bytes, times in seconds.

    instance: the longest part. receiving: parts under way in all. requests: at once. idle: for the next megabyte.
    """

    instance: int
    receiving: int
    requests: int
    idle: float


class StoreService:
    """Takes requests in. `witness` is told what an audit trail keeps."""

    def __init__(
        self,
        store: InstanceStore,
        access: Access,
        limits: StoreLimits,
        ae_title: str,
        witness: Callable[[Happening], None],
    ) -> None:
        self._store, self._access, self._limits, self._ae_title = store, access, limits, ae_title
        self._intake, self._witness = Intake(store, limits.instance, witness), witness
        self._requests = self._receiving = 0

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/dicom-web", tags=["STOW-RS"])
        options: dict[str, Any] = {"openapi_extra": _OPENAPI, "responses": _RESPONSES, "response_class": Response}

        @router.post("/studies", summary="Store instances", operation_id="store_instances", **options)
        async def store(request: Request) -> Response:
            return await self._take(request, None)

        @router.post(
            "/studies/{study_uid}", summary="Store instances of a study", operation_id="store_study", **options
        )
        async def store_study(request: Request, study_uid: str) -> Response:
            return await self._take(request, study_uid)

        return router

    async def _take(self, request: Request, study_uid: str | None) -> Response:
        sender = self._access.sender(request)
        media_type = _acceptable(request.headers.get("accept", ""))
        if study_uid is not None and not is_uid(study_uid):
            raise HTTPException(400, "The study of the address is not a valid UID.")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "Send the body without Content-Encoding.")
        reason = self._objection()
        if reason is not None:
            logger.warning("A request of %s from %s is not taken: %s", sender.name, sender.address, reason)
            await run_in_threadpool(self._witness, Happening("rejected", sender.name, sender.address, reason))
            raise _busy(reason)
        self._requests += 1
        try:
            return await self._store_parts(
                request, StoreRequest(self._intake, sender, self._ae_title, study_uid), media_type
            )

        finally:
            self._requests -= 1

    async def _store_parts(self, request: Request, stored: StoreRequest, media_type: str) -> Response:
        held = 0
        try:
            reader = PartReader(request.headers.get("content-type", ""), self._limits.instance)
            async for chunk in self._chunks(request):
                await _take_all(stored, reader.feed(chunk))
                self._receiving += reader.held - held
                held = reader.held
                if self._receiving > self._limits.receiving:
                    raise _busy("Too much is being received already.")
            await _take_all(stored, reader.end())
            answer = stored.answer()
        except Malformed as error:
            raise HTTPException(error.status, str(error)) from error
        except ClientDisconnect:
            logger.warning("A request was cut; the instances that had come are kept.")
            return Response(status_code=400)
        finally:
            self._receiving -= held
            happening = stored.happening()
            if happening is not None:
                await run_in_threadpool(self._witness, happening)
        headers = {"Retry-After": str(RETRY_SECONDS)} if answer.status == 503 else None
        return Response(_ANSWERS[media_type](answer.dataset), answer.status, headers, media_type)

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body as it comes; each megabyte has its time."""
        loop = asyncio.get_running_loop()
        deadline, count = loop.time() + self._limits.idle, 0
        body = request.stream()
        while True:
            try:
                chunk = await asyncio.wait_for(anext(body), deadline - loop.time())
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise HTTPException(408, f"A megabyte took more than {self._limits.idle:g} s.") from error
            yield chunk
            count += len(chunk)
            if count >= _PACE:
                deadline, count = loop.time() + self._limits.idle, 0

    def _objection(self) -> str | None:
        """Return why a request is not taken; None where it is."""
        reason = self._store.objection()
        if reason is not None:
            return f"{reason[0].upper()}{reason[1:]}."
        if self._requests >= self._limits.requests:
            return f"{self._requests} requests are under way already."
        return None


async def _take_all(stored: StoreRequest, parts: Iterable[bytes | None]) -> None:
    for part in parts:
        # Writing and syncing takes its time; others are served meanwhile.
        await run_in_threadpool(stored.take, part)


def _acceptable(accept: str) -> str:
    """Return the media type of the answer: JSON where nothing else is asked for (PS3.18 section 8.7.5)."""
    wanted = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    if not accept.strip() or any(each in ("*/*", "application/*", JSON, "application/json") for each in wanted):
        return JSON
    if XML in wanted:
        return XML
    raise HTTPException(406, f"Answers are made as {JSON} or {XML}.")


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, reason, {"Retry-After": str(RETRY_SECONDS)})
