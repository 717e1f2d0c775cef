"""Puts objects into a bucket: short ones in one request, long ones in parts that count all together."""

import contextlib
import os
from typing import Any, BinaryIO

from cache_schema.errors import CacheError
from cache_schema.s3_client import request

MULTIPART_NBYTES = 1 << 26  # objects that are longer go in parts
_PART_NBYTES = 1 << 24  # in memory while it is sent
_MAX_PARTS = 10_000  # of S3


def upload(bucket: str, key: str, body: BinaryIO, *, unless_there: bool = False) -> None:
    """Put an object, whole or not at all, over any that was there.

    Args:
        unless_there: put it only where none is.

    Raises as `request`.
    """
    nbytes = body.seek(0, os.SEEK_END)
    if nbytes <= MULTIPART_NBYTES:
        request("put_object", bucket, key, Body=body, unless_there=unless_there)
        return
    upload_id = request("create_multipart_upload", bucket, key)["UploadId"]
    try:
        parts = {"Parts": _parts(bucket, key, upload_id, body, nbytes)}
        _complete(bucket, key, nbytes, UploadId=upload_id, MultipartUpload=parts, unless_there=unless_there)
    except BaseException:
        _abort(bucket, key, upload_id)
        raise


def _parts(bucket: str, key: str, upload_id: str, body: BinaryIO, nbytes: int) -> list[dict[str, Any]]:
    part_nbytes = max(_PART_NBYTES, -(-nbytes // _MAX_PARTS))
    body.seek(0)
    parts = []
    for number in range(1, -(-nbytes // part_nbytes) + 1):
        data = body.read(part_nbytes)
        answer = request("upload_part", bucket, key, UploadId=upload_id, PartNumber=number, Body=data)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    return parts


def _complete(bucket: str, key: str, nbytes: int, **parameters: Any) -> None:
    try:
        request("complete_multipart_upload", bucket, key, **parameters)
    except FileNotFoundError:
        # No such upload any more: an earlier attempt completed it, and its answer was lost.
        if request("head_object", bucket, key).get("ContentLength") != nbytes:
            raise


def _abort(bucket: str, key: str, upload_id: str) -> None:
    """Free what was sent of it, if the server still answers; what stays is for the bucket's own rules."""
    with contextlib.suppress(CacheError, FileNotFoundError):
        request("abort_multipart_upload", bucket, key, UploadId=upload_id)
