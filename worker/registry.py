"""The model versions: bundles copied into `data_dir`, their rows, and which one is active."""

import shutil
import uuid
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from worker import audit
from worker.database import Database, now
from worker.errors import NotFoundError, WorkerError
from worker.tables import ModelVersion

DEMO = "demo"


class Registry:
    """The imported bundles. A bundle's files lie under its checksum, so they never change."""

    def __init__(self, database: Database, data_dir: Path, pinned: str | None) -> None:
        """`pinned` is the setting `model`: a version that is used whatever is active."""
        self._database = database
        self._data_dir = data_dir
        self._pinned = pinned

    def import_bundle(self, source: str, *, actor: str) -> ModelVersion:
        """Import the bundle in a folder, or the bundled one by the name `demo`; the first becomes active.

        Importing the same bundle again changes nothing. Raises BundleError or WorkerError.
        """
        folder = Path(source)
        if source == DEMO and not folder.is_dir():
            folder = demo_bundle()
        bundle = open_bundle(folder)
        path = self._keep(bundle)
        description = bundle.description
        try:
            with self._database.write() as session:
                known = session.scalar(select(ModelVersion).where(ModelVersion.bundle_sha256 == bundle.sha256))
                if known is not None:
                    return known
                version = ModelVersion(
                    name=description.name,
                    version=description.version,
                    architecture=description.architecture,
                    bundle_sha256=bundle.sha256,
                    path=str(path.relative_to(self._data_dir)),
                    metrics=dict(description.metrics),
                    active=session.scalar(select(ModelVersion.id).limit(1)) is None,
                    imported_at=now(),
                )
                session.add(version)
                audit.record(session, "model imported", f"{version.name} {version.version}", actor=actor)
        except IntegrityError as error:
            raise WorkerError(
                f"Another bundle is imported as {description.name} {description.version} already: "
                "give the new one another version."
            ) from error
        return version

    def active(self, session: Session) -> ModelVersion | None:
        """Return the version that classifies now; None where there is none, or the pinned one is not imported."""
        if self._pinned is None:
            return session.scalar(select(ModelVersion).where(ModelVersion.active))
        try:
            return self.find(session, self._pinned)
        except NotFoundError:
            return None

    def find(self, session: Session, name: str) -> ModelVersion:
        """Return a version by `name`, `name version` or the start of its checksum. Raises NotFoundError."""
        plain, _, version = name.replace("@", " ").replace(":", " ").partition(" ")
        query = select(ModelVersion).where(ModelVersion.name == plain).order_by(ModelVersion.id.desc())
        if version:
            query = query.where(ModelVersion.version == version)
        found = session.scalar(query.limit(1))
        if found is None and len(name) >= 8:
            found = session.scalar(
                select(ModelVersion).where(ModelVersion.bundle_sha256.startswith(name, autoescape=True))
            )
        if found is None:
            raise NotFoundError(f"There is no model {name}: see 'reticula models list'.")
        return found

    def all(self) -> list[ModelVersion]:
        """Return all versions, the newest first."""
        with self._database.read() as session:
            return list(session.scalars(select(ModelVersion).order_by(ModelVersion.id.desc())))

    def promote(self, name: str, *, actor: str) -> ModelVersion:
        """Make a version the active one. Raises NotFoundError."""
        with self._database.write() as session:
            chosen = self.find(session, name)
            session.execute(update(ModelVersion).where(ModelVersion.active).values(active=False))
            session.execute(update(ModelVersion).where(ModelVersion.id == chosen.id).values(active=True))
            audit.record(session, "model promoted", f"{chosen.name} {chosen.version}", actor=actor)
        return chosen

    def folder(self, version: ModelVersion) -> Path:
        """Return where a version's bundle lies."""
        return self._data_dir / version.path

    def _keep(self, bundle: Bundle) -> Path:
        """Copy the bundle's files to their place under `data_dir`, all or none."""
        target = self._data_dir / "bundles" / bundle.sha256
        if target.is_dir():
            try:
                open_bundle(target)
            except BundleError:
                shutil.rmtree(target)  # damaged: it is copied again
            else:
                return target
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        workshop = target.parent / f".{uuid.uuid4().hex}"
        try:
            shutil.copytree(bundle.folder, workshop)
            if open_bundle(workshop).sha256 != bundle.sha256:
                raise BundleError(f"{bundle.folder} changed while it was copied.")
            workshop.rename(target)
        except OSError as error:
            if not target.is_dir():  # another import was faster
                raise WorkerError(f"The bundle cannot be copied to {target}: {error.strerror}.") from error
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
        return target


def demo_bundle() -> Path:
    """Return the bundle that comes with the software. It knows phantoms only."""
    return Path(str(resources.files("models"))) / "demo"


def as_json(version: ModelVersion) -> dict[str, Any]:
    """Return a version as scripts read it."""
    return {
        "name": version.name,
        "version": version.version,
        "architecture": version.architecture,
        "bundle_sha256": version.bundle_sha256,
        "active": version.active,
        "imported_at": version.imported_at.isoformat(),
        "metrics": version.metrics,
    }
