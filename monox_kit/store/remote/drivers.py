"""Which protocols a store may be labelled to, and what opens them.

A store at a URL needs one promise: an object is put only where none is, in one step. fsspec offers
it as `pipe_file(..., mode="create")`; its own default looks first and writes then, and a driver may
pass over the mode without a word. So the drivers whose code was read are listed here.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from monox_kit.errors import ConfigError, StorageError, first_line


@dataclass(frozen=True, slots=True)
class Driver:
    """How objects of some protocols are put.

    Attributes:
        packages: what must be installed, each with the least version.
        options: of `pipe_file`, beside the mode.
        most_bytes: of one object.
    """

    packages: Mapping[str, str]
    options: Mapping[str, Any]
    most_bytes: int


# `If-None-Match: *`, which older botocore drops without a word. Above twice the chunk size the
# driver would upload in parts, whose last request some S3 work-alikes take without the condition:
# with this chunk every object is one PUT, as the probe is.
# Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
_S3 = Driver({"s3fs": "2025.3", "botocore": "1.35.21"}, {"chunksize": 5 << 30}, (5 << 30) - 1)
# `ifGenerationMatch=0`; for the chunk see S3.
# Source: https://cloud.google.com/storage/docs/request-preconditions
_GCS = Driver({"gcsfs": "2025.3"}, {"chunksize": 5 << 30}, (5 << 30) - 1)
# `If-None-Match: *`, above 64 MiB on the list of blocks that makes them an object.
# Source: https://learn.microsoft.com/rest/api/storageservices/put-block-list
_AZURE = Driver({"adlfs": "2024.12"}, {}, 100 << 30)

DRIVERS: dict[str, Driver] = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}


def driver_of(url: str) -> Driver:
    """The driver of a URL's protocol.

    Raises:
        ConfigError: the protocol is none of those listed, or its packages are absent or too old.
    """
    protocol = url.partition("://")[0]
    driver = DRIVERS.get(protocol)
    if driver is None:
        step = (
            "Give a folder" if protocol in ("file", "local") else "Give one of those, or a folder"
        )
        raise ConfigError(
            f"{url}: expected a store at {', '.join(f'{name}://' for name in DRIVERS)}, where an "
            f"object is put only if there is none yet, found {protocol}://. {step}; finished "
            "stores are folders that any program may copy."
        )
    for package, least in driver.packages.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found == "none" or Version(found) < Version(least):
            raise ConfigError(
                f"{url}: expected the package {package} {least} or later, found {found}. "
                f"Run: pip install {' '.join(f'{p!r}' for p in _wanted(driver))}".replace("'", '"')
            )
    return driver


def _wanted(driver: Driver) -> list[str]:
    return [f"{package}>={least}" for package, least in driver.packages.items()]


def open_url(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        ConfigError: it names no place.
        StorageError: the driver refused to open it.
    """
    import fsspec  # its drivers are heavy, and most stores are folders

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except Exception as error:  # each driver has errors of its own
        raise StorageError(
            f"{url}: expected an address that fsspec opens, found: {first_line(error)}. Correct "
            "the address and the access to it."
        ) from error
    if not str(root).strip("/"):
        raise ConfigError(
            f"{url}: expected a place for the store, found none. Give a name after the `://`."
        )
    return filesystem, str(root).rstrip("/")
