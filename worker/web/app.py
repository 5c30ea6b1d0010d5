"""The ASGI application: its routes and its description in OpenAPI."""

from fastapi import FastAPI, Response

from pacs.spool import InstanceStore
from worker.version import __version__
from worker.web.stow import RETRY_SECONDS, StoreService


def make_app(store: InstanceStore, service: StoreService) -> FastAPI:
    """Return the application. Its description is at /openapi.json."""
    app = FastAPI(
        title="Reticula",
        version=__version__,
        description="Chest CT comes in by STOW-RS; structured reports go out to the PACS.",
        docs_url=None,  # the pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(service.router())

    @app.get("/health", summary="Whether instances can be taken", responses={503: {"description": "There is no room."}})
    def health(response: Response) -> dict[str, str]:
        reason = store.objection()
        if reason is None:
            return {"status": "ok"}
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_SECONDS)
        return {"status": reason}

    return app
