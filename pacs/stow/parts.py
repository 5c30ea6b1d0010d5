"""The parts of a request's body, cut out while it comes, and bounded (PS3.18 chapter 8.6, RFC 2046 chapter 5.1)."""

from collections.abc import Iterator
from email.message import Message

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser

from pacs.errors import PacsError

DICOM = "application/dicom"
_MULTIPART = "multipart/related"
_LONGEST_BOUNDARY = 200  # RFC 2046 chapter 5.1.1 has 70; Orthanc sends 73


class Malformed(PacsError):
    """The request cannot be read; `status` is that of HTTP, the message a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class PartReader:
    """Yields the parts of a body, each as its bytes, or None where it is longer than `longest` or of another type.

    Raises Malformed for a media type that is not stored here.
    """

    def __init__(self, content_type: str, longest: int) -> None:
        self._longest = longest
        self._done: list[bytes | None] = []
        self._part, self._skipped = bytearray(), False
        self._header, self._value = b"", b""
        self._ended = False
        self._parser: MultipartParser | None = None
        kind, boundary = _media_type(content_type)
        if kind == DICOM:
            return
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._header_ended,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end,
                    "on_end": self._body_ended,
                },
            )
        except FormParserError as error:
            raise Malformed(400, "The boundary cannot be used.") from error

    @property
    def held(self) -> int:
        """How many bytes of a part are held that is not complete yet."""
        return len(self._part)

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Take some more of the body and yield the parts that end in it. Raises Malformed."""
        if self._parser is None:
            self._on_data(chunk, 0, len(chunk))
            return
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise Malformed(400, "The body is not made of parts as its Content-Type says.") from error
        done, self._done = self._done, []
        yield from done

    def end(self) -> Iterator[bytes | None]:
        """Yield what is complete only now that the body has ended. Raises Malformed where its end is missing."""
        if self._parser is None:
            if self._part or self._skipped:
                self._end()
                yield self._done.pop()
        elif not self._ended:
            raise Malformed(400, "The body ends in the middle of a part.")

    def _begin(self) -> None:
        self._part, self._skipped = bytearray(), False

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ended(self) -> None:
        if self._header.strip().lower() == b"content-type":
            self._skipped |= _parsed(self._value.decode("latin-1")).get_content_type() != DICOM
        self._header, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._skipped or len(self._part) + end - start > self._longest:
            self._part, self._skipped = bytearray(), True
        else:
            self._part += memoryview(data)[start:end]

    def _end(self) -> None:
        self._done.append(None if self._skipped else bytes(self._part))
        self._part = bytearray()

    def _body_ended(self) -> None:
        self._ended = True


def _media_type(content_type: str) -> tuple[str, bytes]:
    """Return what the body is, and the boundary of its parts. Raises Malformed."""
    parsed = _parsed(content_type)
    kind = parsed.get_content_type()
    if kind == DICOM and content_type:
        return DICOM, b""
    of = str(parsed.get_param("type", DICOM)).lower()
    if kind != _MULTIPART or of != DICOM:
        raise Malformed(
            415, f'Only {_MULTIPART}; type="{DICOM}" and {DICOM} are stored, not metadata and bulk data apart.'
        )
    boundary = parsed.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise Malformed(400, "The Content-Type names no boundary of 1 to 200 characters.")
    return _MULTIPART, boundary.encode("ascii")


def _parsed(content_type: str) -> Message:
    message = Message()
    message["Content-Type"] = content_type.replace("\r", "").replace("\n", "")
    return message
