"""What an object store's error means: one line that says why a request failed, and what to do about it.

The line has neither a URL's query nor more of the server's answer than its status: both may hold credentials.
"""

from __future__ import annotations

import os
import re

ENDPOINTS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)
"""Variables that name another server than the usual one."""
_STATUS = re.compile(r"status code: (\d{3})(?: ([A-Z][A-Za-z ]+))?")
_NOISE = re.compile(
    r"^Generic \w+ error: | in [\d.]+\w*s(?:, after .*retry_timeout: \w+)?(?= +-)|(?<= ) +(?=-)"
)
_SECRET = re.compile(r"(?<=//)[^/\s@]*@|\?[^\s'\")]*")
_NO_BUCKET = re.compile(r"<Code>(?:NoSuchBucket|ContainerNotFound)</Code>")
_ROLE = re.compile(r"169\.254\.\d+\.\d+|metadata\.google\.internal|metadata/identity")
"""Where a machine's role has credentials; they are asked for there if the environment has none."""
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_MAKE = {
    "s3": "aws s3 mb s3://{}",
    "gs": "gcloud storage buckets create gs://{}",
    "az": "az storage container create --name {}",
}

ADVICE = "check the URL, the network and the credentials in the environment,"


class ObjectStoreError(OSError):
    """A request that failed; `advice` is what to do, for `encyclo.storage.files`."""

    def __init__(self, reason: str, advice: str = ADVICE) -> None:
        super().__init__(reason)
        self.advice = advice


class ObjectMissingError(FileNotFoundError):
    """An object that is not there; `advice` as above."""

    advice = "another process may be removing the run's objects: wait for its end"


def explained(error: Exception, url: str) -> ObjectStoreError:
    """Return the error to raise for a failed request to the store of `url`."""
    text = str(error)
    scheme, _, place = url.partition("://")
    bucket, variables = place.partition("/")[0], _VARIABLES.get(scheme, "the credentials")
    if is_bucket_missing(error):
        kind = "container" if scheme == "az" else "bucket"
        return ObjectStoreError(
            f"there is no {kind} {bucket!r}{_there()}",
            f"create it (`{_MAKE.get(scheme, '{}').format(bucket)}`) or correct the URL,",
        )
    if _ROLE.search(text.partition("\n")[0]):
        return ObjectStoreError(
            "the environment has no credentials, and this machine has no role that gives some",
            f"set {variables},",
        )
    if "without LOCATION" in text:
        return ObjectStoreError(
            f"the bucket {bucket!r} is in another region", "set AWS_REGION to the bucket's region"
        )
    status = _STATUS.search(text)
    if status and status[1] in ("401", "403"):
        return ObjectStoreError(
            reason(error),
            f"check {variables}, and that they may list, read, write and delete in {bucket!r},",
        )
    if status is None and "HTTP error" in text:
        return ObjectStoreError(reason(error), f"check the network and {_endpoint() or 'the URL'}")
    return ObjectStoreError(reason(error))


def is_bucket_missing(error: Exception) -> bool:
    """Return whether a request failed because there is no such bucket."""
    return bool(_NO_BUCKET.search(str(error)))


def reason(error: Exception) -> str:
    """Return why a request failed, without what an answer or a URL may hold of credentials."""
    text = str(error).partition("\n")[0]
    if status := _STATUS.search(text):
        return f"the object store answered {status[1]}{f' {status[2].strip()}' if status[2] else ''}"
    return f"the object store could not be used ({_NOISE.sub('', _SECRET.sub('', text))[:200].strip()})"


def _endpoint() -> str:
    """Return the variable that names the server; "" for the usual one."""
    return next((name for name in ENDPOINTS if os.environ.get(name)), "")


def _there() -> str:
    return f" on the server that {_endpoint()} names" if _endpoint() else ""
