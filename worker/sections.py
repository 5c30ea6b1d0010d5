"""The sections of the settings: what each one may hold. See the README for what they mean."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    SecretStr,
    field_validator,
    model_validator,
)

AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*)$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(_Section):
    """PEM files for DICOM over TLS: our certificate and its key, and the authorities that we believe."""

    certificate: Path
    key: Path
    authorities: Path


class ListenerSettings(_Section):
    """`[listener]`: who we are on the wire, what one peer may cost, and when a series is complete."""

    ae_title: AETitle = "RETICULA"
    host: str = "127.0.0.1"
    port: Port = 11112
    processes: int = Field(default=2, ge=1, le=64)
    quiet_seconds: float = Field(default=30, gt=0)
    settled_seconds: float = Field(default=5, gt=0)
    expected_from: Name | None = None
    max_wait_seconds: float = Field(default=1800, gt=0)
    max_associations: int = Field(default=32, ge=1)
    max_associations_per_peer: int = Field(default=16, ge=1)
    max_pdu_bytes: int = Field(default=1 << 20, ge=1 << 14)
    max_instance_mb: int = Field(default=1024, ge=1)
    negotiation_seconds: float = Field(default=15, gt=0)
    idle_seconds: float = Field(default=60, gt=0)
    min_free_mb: int = Field(default=1024, ge=0)
    conflicts: Literal["aside", "refuse", "revise"] = "aside"
    aside_days: int = Field(default=14, ge=0)
    rejection_notes: Literal["follow", "ignore"] = "follow"
    tls: TlsSettings | None = None


class HttpTlsSettings(_Section):
    """PEM files for HTTPS: our certificate and its key; with authorities every client must show a certificate."""

    certificate: Path
    key: Path
    authorities: Path | None = None


class AccountSettings(_Section):
    """`[[http.accounts]]`: who may ask over HTTP, by a bearer token, here or in a file."""

    name: Name
    token: SecretStr | None = Field(default=None, min_length=8)
    token_file: Path | None = None

    @model_validator(mode="after")
    def _one_token(self) -> "AccountSettings":
        if (self.token is None) == (self.token_file is None):
            raise ValueError("needs a token, here or in a file")
        return self


class HttpSettings(_Section):
    """`[http]`: instances by STOW-RS. Limits and rules are those of `[listener]`."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 11180
    max_requests: int = Field(default=16, ge=1)
    accounts: tuple[AccountSettings, ...] = ()
    tls: HttpTlsSettings | None = None

    @field_validator("accounts")
    @classmethod
    def _distinct(cls, value: tuple[AccountSettings, ...]) -> tuple[AccountSettings, ...]:
        if len({account.name for account in value}) < len(value):
            raise ValueError("each account needs a name of its own")
        return value


# Kernels that show lungs, as manufacturers name them: Siemens, Philips, GE, Canon.
_LUNG_KERNELS = (
    "B5*", "B6*", "B7*", "B8*", "Bl5*", "Bl6*", "Br5*", "Br6*", "I5*", "I7*", "YA", "YB", "YC", "YD", "L", "*LUNG*",
    "EDGE", "BONEPLUS", "FC5*", "FC8*",
)  # fmt: skip


class SelectionSettings(_Section):
    """`[selection]`: which series are classified, and which of a study speaks for it."""

    min_slices: int = Field(default=10, ge=1)
    prefer_kernels: tuple[str, ...] = _LUNG_KERNELS
    others: Literal["keep", "classify"] = "keep"


class RuleSettings(_Section):
    """`[[rules]]`: which exams are taken, left, or put ahead; see `worker.rules`."""

    name: Name
    does: Literal["scope", "exclude", "urgent"]
    patients: tuple[str, ...] = ()
    patients_file: Path | None = None
    codes: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    senders: tuple[AETitle, ...] = ()
    body_parts: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    min_thickness_mm: float | None = Field(default=None, gt=0)
    max_thickness_mm: float | None = Field(default=None, gt=0)
    min_slices: int | None = Field(default=None, ge=1)
    max_slices: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _some_condition(self) -> "RuleSettings":
        if not self.model_fields_set - {"name", "does"}:
            raise ValueError("needs a condition: without one it would match everything")
        return self


class DeliverySettings(_Section):
    """`[delivery]`: with `shadow` nothing is sent. identity_from: the source that is asked again whose exam it is.

    rejections: whether a study that came to nothing gets a notice, when nothing more has happened for so many seconds.
    research_probabilities: whether the report of an abstention states the probabilities that led to no verdict, too.
    Readers that take every number for a result must not see it: it is for research.
    """

    shadow: bool = False
    rejections: bool = False
    rejections_after_seconds: float = Field(default=1800, ge=0)
    research_probabilities: bool = False
    identity_from: Name | None = None
    identity_changed: Literal["take", "hold"] = "take"


class WorkerSettings(_Section):
    """`[worker]`: how long a worker may hold an exam without a sign, and how much memory it may take.

    challenger: whether the newest challenger classifies in shadow, when no exam waits, what came in so many days.
    """

    lease_seconds: float = Field(default=120, ge=5)
    memory_mb: int = Field(default=4096, ge=1024)
    stuck_seconds: float = Field(default=180, ge=5)
    challenger: bool = True
    challenger_days: int = Field(default=30, ge=1)


class RetentionSettings(_Section):
    """`[retention]`: after how many days the pixels of a reported exam go; None keeps them."""

    pixels_days: int | None = Field(default=None, ge=1)


class PrivacySettings(_Section):
    """`[privacy]`: the file with the key under which SQL hashes who a patient is; None keeps it as the header says."""

    key_file: Path | None = None


class AuditSettings(_Section):
    """`[audit]`: the syslog server that takes the audit trail as DICOM audit messages, by UDP or, with `tls`, TLS."""

    host: str | None = None
    port: Port = 514
    tls: TlsSettings | None = None


class TrainingSettings(_Section):
    """`[training]`: the data that models are trained on, where they start, and what they are asked about.

    battery: how many exams of each kind that a model must not name; with fewer than 30 none passes. unknowns: a folder
    of the site's own exams that are none of a model's business.
    """

    dataset: Path | None = None
    weights: Path | None = None
    int8: bool = True
    battery: Annotated[int, Field(ge=0)] = 30
    unknowns: Path | None = None


class PeerSettings(_Section):
    """`[[peers]]`: who may connect."""

    ae_title: AETitle
    address: IPvAnyAddress
    port: Port | None = None


# What a destination gets: the report always, and beside it what is named.
Objects = Annotated[
    tuple[Literal["sr", "summary", "heatmaps", "pdf"], ...],
    AfterValidator(lambda value: tuple(dict.fromkeys(("sr", *value)))),
]


class DimseSettings(_Section):
    """`[[destinations]]` of kind `dimse`: a PACS reached by C-STORE."""

    name: Name
    kind: Literal["dimse"]
    required: bool = True
    host: str
    port: Port
    ae_title: AETitle
    calling_ae: AETitle = "RETICULA"
    commitment: bool = False
    objects: Objects = ("sr",)
    tls: TlsSettings | None = None


class AuthSettings(_Section):
    """Credentials of a DICOMweb destination: user and password, or a bearer token, here or in a file."""

    user: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    token: SecretStr | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "AuthSettings":
        passwords = (self.password is not None) + (self.password_file is not None)
        tokens = (self.token is not None) + (self.token_file is not None)
        if (self.user is not None, passwords, tokens) not in ((True, 1, 0), (False, 0, 1)):
            raise ValueError("needs either user and password, or a token; password and token here or in a file")
        return self


def _without_credentials(value: str) -> str:
    if "@" in value.split("/")[2]:
        raise ValueError("must hold no user and password, since it is shown: give them as auth")
    return value


WebAddress = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_without_credentials)]


class DicomwebSettings(_Section):
    """`[[destinations]]` of kind `dicomweb`: a PACS reached by STOW-RS."""

    name: Name
    kind: Literal["dicomweb"]
    required: bool = True
    url: WebAddress
    auth: AuthSettings | None = None
    objects: Objects = ("sr",)
    verify: bool | Path = True


DestinationSettings = Annotated[DimseSettings | DicomwebSettings, Field(discriminator="kind")]


class WorklistSettings(_Section):
    """`[worklist]`: where a study is opened; `{study_uid}` is filled in."""

    viewer: str | None = Field(default=None, pattern=r"^https?://.*\{study_uid\}")


class DimseSourceSettings(_Section):
    """`[[sources]]` of kind `dimse`: an archive asked by C-FIND. With `move` it must know our AE title and listener."""

    name: Name
    kind: Literal["dimse"]
    host: str
    port: Port
    ae_title: AETitle
    calling_ae: AETitle = "RETICULA"
    retrieve: Literal["get", "move"] = "get"
    tls: TlsSettings | None = None


class DicomwebSourceSettings(_Section):
    """`[[sources]]` of kind `dicomweb`: an archive asked by QIDO-RS."""

    name: Name
    kind: Literal["dicomweb"]
    url: WebAddress
    auth: AuthSettings | None = None
    verify: bool | Path = True


SourceSettings = Annotated[DimseSourceSettings | DicomwebSourceSettings, Field(discriminator="kind")]
