"""Settings: variables over `reticula.toml` over defaults, checked before anything starts."""

import os
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pacs.codes import Language
from worker.errors import SettingsError
from worker.sections import (
    AuditSettings,
    DeliverySettings,
    DestinationSettings,
    HttpSettings,
    ListenerSettings,
    PeerSettings,
    PrivacySettings,
    RetentionSettings,
    RuleSettings,
    SelectionSettings,
    SourceSettings,
    TrainingSettings,
    WorkerSettings,
    WorklistSettings,
)
from worker.variables import CONFIG_VARIABLE

SUPERVISOR_VARIABLE = "RETICULA_SUPERVISOR"
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, SUPERVISOR_VARIABLE})
DEFAULT_CONFIG = Path("reticula.toml")


class Settings(BaseSettings):
    """Everything that can be set; see the README for what each one means."""

    model_config = SettingsConfigDict(
        env_prefix="RETICULA_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=False,
    )

    data_dir: Path = Path("reticula-data")
    database_url: str | None = None
    broker_url: str | None = None
    language: Language = "en"
    model: str | None = None
    completion: Literal["PRELIMINARY", "FINAL"] = "PRELIMINARY"
    listener: ListenerSettings = ListenerSettings()
    http: HttpSettings = HttpSettings()
    selection: SelectionSettings = SelectionSettings()
    delivery: DeliverySettings = DeliverySettings()
    worker: WorkerSettings = WorkerSettings()
    retention: RetentionSettings = RetentionSettings()
    privacy: PrivacySettings = PrivacySettings()
    audit: AuditSettings = AuditSettings()
    training: TrainingSettings = TrainingSettings()
    worklist: WorklistSettings = WorklistSettings()
    rules: tuple[RuleSettings, ...] = ()
    peers: tuple[PeerSettings, ...] = ()
    destinations: tuple[DestinationSettings, ...] = ()
    sources: tuple[SourceSettings, ...] = ()

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("destinations")
    @classmethod
    def _distinct(cls, value: tuple[DestinationSettings, ...]) -> tuple[DestinationSettings, ...]:
        names = [destination.name for destination in value]
        if len(set(names)) < len(names):
            raise ValueError("each destination needs a name of its own")
        return value

    @field_validator("sources")
    @classmethod
    def _different(cls, value: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        if len({source.name for source in value}) < len(value):
            raise ValueError("each source needs a name of its own")
        return value

    @model_validator(mode="after")
    def _known_source(self) -> "Settings":
        asked = {"listener.expected_from": self.listener.expected_from}
        asked["delivery.identity_from"] = self.delivery.identity_from
        for setting, named in asked.items():
            if named is not None and named not in {source.name for source in self.sources}:
                raise ValueError(f"{setting} names {named}, which is none of the [[sources]]")
        return self

    @field_validator("rules")
    @classmethod
    def _named_once(cls, value: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        if len({rule.name for rule in value}) < len(value):
            raise ValueError("each rule needs a name of its own")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("must start with postgresql+psycopg:// or sqlite:///")
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "amqp://", "amqps://")):
            raise ValueError("must start with redis://, rediss://, amqp:// or amqps://")
        return value

    @property
    def notices_after(self) -> timedelta | None:
        """How long nothing must have happened in a study that came to nothing; None where no notice is sent."""
        configured = self.delivery
        seconds = configured.rejections_after_seconds
        return timedelta(seconds=seconds) if configured.rejections and not configured.shadow else None

    @property
    def together(self) -> timedelta | None:
        """How long an exam waits at most for series of its study that still come in; None where it does not."""
        return timedelta(seconds=self.listener.max_wait_seconds) if self.selection.others == "keep" else None

    @property
    def database(self) -> str:
        """The URL of the database: SQLite in `data_dir` where none is set."""
        return self.database_url or f"sqlite:///{self.data_dir / 'reticula.sqlite3'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables first, then the file that the variable or the working directory names."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def load_settings() -> Settings:
    """Read the settings. Raises SettingsError with one sentence for the first that is wrong."""
    file = config_file()
    if file is None and os.environ.get(CONFIG_VARIABLE):
        raise SettingsError(
            f"The settings file {os.environ[CONFIG_VARIABLE]} does not exist: mend --config or {CONFIG_VARIABLE}."
        )
    _check_variables()
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from error
    except ValueError as error:  # a variable that should hold JSON and does not
        raise SettingsError(
            f"A RETICULA_ variable cannot be read: {error}; lists and tables are given as JSON."
        ) from error


def config_file() -> Path | None:
    """The file that settings are read from; None where there is none."""
    named = os.environ.get(CONFIG_VARIABLE)
    file = Path(named) if named else DEFAULT_CONFIG
    return file if file.is_file() else None


# What is allowed, by the kind of error; the rest of pydantic's own sentences read well enough.
_ALLOWED = {
    "bool_parsing": "must be true or false",
    "extra_forbidden": "is not known: remove it or mend its name",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "ip_any_address": "must be an IP address",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing: give it a value",
    "model_type": "must be a table",
    "path_type": "must be a path",
    "string_pattern_mismatch": "has characters or a form that are not allowed",
    "string_too_long": "may have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "union_tag_invalid": "must be of kind {expected_tags}",
    "union_tag_not_found": "needs a kind: 'dimse' or 'dicomweb'",
}
_SECRET = frozenset({"auth", "password", "token"})


def _sentence(error: ValidationError) -> str:
    """Name the first wrong setting, its value and what is allowed; never show what may hold a password."""
    first = error.errors()[0]
    name, value, context = _setting_name(first["loc"]), first["input"], first.get("ctx", {})
    allowed = _ALLOWED.get(first["type"], first["msg"].removeprefix("Value error, ")).format(**context)
    if first["type"] in ("missing", "extra_forbidden"):
        return f"The setting {name} {allowed}."
    if _SECRET.intersection(map(str, first["loc"])) or name.endswith(("_url", ".url")):
        return f"The setting {name} {allowed}; its value is not shown, for it may hold a password."
    shown = repr(value) if isinstance(value, (str, int, float)) else "what stands there"
    return f"The setting {name} is {shown}: it {allowed}."


def _check_variables() -> None:
    """Refuse variables of ours that mean nothing: a misspelt one would be passed over in silence."""
    for variable in sorted(os.environ):
        path = variable.removeprefix("RETICULA_").lower().split("__")
        if not variable.startswith(("RETICULA_",)) or variable in _OTHER_VARIABLES or path[0].startswith("test_"):
            continue
        field = Settings.model_fields.get(path[0])
        section = None if field is None else field.annotation
        nested = isinstance(section, type) and issubclass(section, BaseModel)
        if field is None or (len(path) > 1 and not (nested and path[1] in section.model_fields)):  # type: ignore[union-attr]
            raise SettingsError(f"The variable {variable} names no setting: remove it or mend its name.")


def _setting_name(location: Sequence[Any]) -> str:
    """`('destinations', 0, 'dimse', 'port')` reads `destinations[0].port`."""
    name = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            name += f"[{part}]"
        elif not (index and isinstance(location[index - 1], int) and part in ("dimse", "dicomweb")):
            name += f".{part}" if name else str(part)
    return name
