"""What is served with what limits, and what a server's run did."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from monox_kit.config import Config, Opposite
from monox_kit.errors import ConfigError
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS

# Names stand in paths (`/v2/models/NAME`) and in metrics.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOOPBACK_NAMES = ("localhost", "ip6-localhost")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig(Config):
    """What is served with what limits.

    Attributes:
        bundles: ONNX bundles, each as FOLDER or NAME=FOLDER; the first answers requests that name
            no model.
        host: address to listen on. Beyond the loopback address the server needs `keys`, or
            `without_keys`.
        port: port to listen on; 0 takes a free one, which is printed.
        keys: file of keys that clients send as Authorization: Bearer KEY, one a line; read again on
            SIGHUP.
        without_keys: serve everybody who can reach `host`. Without it, a server that has no keys
            refuses what browsers send for pages of other sites.
        provider: what runs the graphs: cpu, cuda or tensorrt of ONNX Runtime, openvino (its own
            runtime) or openvino-ep (through onnxruntime-openvino).
        sessions: batches of a model that run at once [default: 1, or 2 on OpenVINO].
        threads: threads of each of them [default: the cores, shared among sessions].
        batch_tokens: padded tokens that a run has at most. A run is kept to about 30 ms by its
            model's measured speed, but to no less than 256 tokens.
        max_length: truncate texts at this many tokens [default: the bundle's].
        truncate: truncate long texts where a request does not say; without it they are refused.
        max_wait_s: requests that would wait longer than this for their run are answered 429, with
            the seconds to wait in Retry-After.
        timeout_s: requests without an answer after this time are answered 504.
        max_rows: texts that a request may have.
        max_characters: characters that a text may have, before it is tokenized.
        max_tokens: tokens that a request may have in all its texts.
        max_body_bytes: size that a request's body may have.
        max_requests: requests that are held at once; more are answered 429.
        max_connections: connections that are open at once.
        sender_timeout_s: time in which a client must send its request.
        shutdown_s: time in which the server ends after SIGTERM. It answers what it has accepted.
        drain_s: part of that time in which it still takes requests, while load balancers notice
            that it is no longer ready.
        self_test: compare golden texts with what the export recorded before a bundle is served;
            bundles without any are then refused.
    """

    bundles: Annotated[tuple[str, ...], MinLen(1)]
    host: Annotated[str, MinLen(1)] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535)] = 8080
    keys: Path | None = None
    without_keys: bool = False
    provider: str = "cpu"
    sessions: Annotated[int, Ge(1)] | None = None
    threads: Annotated[int, Ge(1)] | None = None
    batch_tokens: Annotated[int, Ge(1)] = DEFAULT_BATCH_TOKENS
    max_length: Annotated[int, Ge(4)] | None = None
    truncate: Annotated[bool, Opposite("refuse_long")] = True
    max_wait_s: Annotated[float, Gt(0)] = 0.5
    timeout_s: Annotated[float, Gt(0)] = 5.0
    max_rows: Annotated[int, Ge(1)] = 64
    max_characters: Annotated[int, Ge(1)] = 100_000
    max_tokens: Annotated[int, Ge(1)] = 16_384
    max_body_bytes: Annotated[int, Ge(1024)] = 2_000_000
    max_requests: Annotated[int, Ge(1)] = 2048
    max_connections: Annotated[int, Ge(1)] = 4096
    sender_timeout_s: Annotated[float, Gt(0)] = 3.0
    shutdown_s: Annotated[float, Gt(0)] = 10.0
    drain_s: Annotated[float, Ge(0)] = 1.0
    self_test: Annotated[bool, Opposite("no_self_test")] = True

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        self.references  # noqa: B018 (checks names)
        if not is_loopback(self.host) and self.keys is None and not self.without_keys:
            raise ConfigError(
                f"`host` {self.host}: everybody who reaches this address could use the server, and "
                "`keys` is not given. Give `keys` FILE, or `without_keys` where the network keeps "
                "others out."
            )
        if self.keys is not None and self.without_keys:
            raise ConfigError(
                f"`keys` {self.keys}: `without_keys` is given too. Leave one of them out."
            )
        least_s = self.drain_s + self.sender_timeout_s + self.timeout_s
        if least_s >= self.shutdown_s:
            raise ConfigError(
                f"`shutdown_s` {self.shutdown_s:g}: what is accepted is to be answered, which may "
                f"take {least_s:g} s: `drain_s`, `sender_timeout_s` and `timeout_s`. Give more, or "
                "less of one of them."
            )

    @property
    def references(self) -> dict[str, str]:
        """The bundles by the names that they are served under.

        Raises:
            ConfigError: a name cannot stand in an address, or is given twice.
        """
        found: dict[str, str] = {}
        for bundle in self.bundles:
            given, is_named, folder = bundle.partition("=")
            if not is_named:
                given, folder = re.split("[/:]", bundle.rstrip("/"))[-1], bundle
            if not folder or not _NAME.fullmatch(given):
                raise ConfigError(
                    f"`bundles` {bundle}: expected FOLDER or NAME=FOLDER with a name of letters, "
                    f"digits, '.', '_' and '-', found the name {given[:100]!r}. Give another."
                )
            if given in found:
                raise ConfigError(
                    f"`bundles` {bundle}: the name {given} is that of {found[given]} too. Give one "
                    "of them as NAME=FOLDER."
                )
            found[given] = folder
        return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSummary:
    """What a server's run did, once it has ended.

    Attributes:
        address: that it listened on, as a URL.
        models: the digests of the bundles that it served last, by name.
        answered: requests by their status.
        ended_by: the signal that ended it.
    """

    address: str
    models: dict[str, str]
    answered: dict[str, int]
    ended_by: Literal["SIGTERM", "SIGINT"]

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return asdict(self)
