"""Answers of a server to botocore, of a length that has an end.

botocore reads every answer that is no object whole into memory, however long it is, and hands its XML to a
parser. Whoever answers may mean harm, so what it reads is read here first.
"""

from collections.abc import Mapping
from typing import Any

ANSWER_NBYTES = 1 << 24  # of an answer whose length nobody can know before


class AnswerTooLong(Exception):
    """Completes the sentence "the object …"."""


class AnswerRefused(Exception):
    """An answer that no object store sends."""


class AnswerCut(OSError):
    """An answer that ends before it should."""


def bound_answers(client: Any) -> Any:
    """The client, which from now on takes at most ANSWER_NBYTES of any answer but an object's body."""
    endpoint = client._endpoint
    endpoint.http_session = _BoundedSession(endpoint.http_session)
    return client


class _BoundedSession:
    """botocore's HTTP session, but that bodies it would read whole are read here."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """As botocore's."""
        is_object, request.stream_output = request.stream_output, True
        response = self._session.send(request)
        if is_object and response.status_code < 300:
            return response
        content = _whole(response.raw, None if request.method == "HEAD" else response.headers)
        # A document type, which S3 never sends, may grow without end in a parser.
        if b"<!" in content:
            if response.status_code < 300:
                raise AnswerRefused("an answer with a document type")
            content = b""  # the page of a proxy: its status says enough
        response._content = content
        return response

    def close(self) -> None:
        """As botocore's."""
        self._session.close()


def read_at_most(body: Any, limit: int) -> bytes:
    """All of a body. Raises AnswerTooLong when it is longer than `limit`; no more than that is taken."""
    pieces, left = [], limit + 1
    while left and (piece := body.read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        body.close()
        raise AnswerTooLong(f"has more than {limit:,} bytes")
    return b"".join(pieces)


def _whole(body: Any, headers: Mapping[str, str] | None) -> bytes:
    """A body of ANSWER_NBYTES at the most, as long as the headers say when they are given."""
    from urllib3.exceptions import HTTPError  # comes with botocore, which not everybody has

    try:
        content = read_at_most(body, ANSWER_NBYTES)
    except HTTPError as error:
        raise AnswerCut(f"{type(error).__name__}: {error}") from None
    announced = "" if headers is None else str(headers.get("content-length", ""))
    if announced.isdecimal() and int(announced) != len(content):
        raise AnswerCut(f"{len(content)} bytes of {announced}")
    return content
