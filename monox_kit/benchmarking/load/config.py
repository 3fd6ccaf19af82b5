"""Which server is loaded, with which requests, how fast and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from monox_kit.config import Config, Separated
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.foreign import shown

Arrivals = Literal["poisson", "constant"]
ProtocolName = Literal["tei", "hugging-face", "kserve", "classify"]
_Rate = Annotated[float, Gt(0), Le(100_000)]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadConfig(Config):
    """Which server is loaded, with which requests, how fast and for how long.

    Attributes:
        url: address of the server, such as http://127.0.0.1:8080.
        test: files of texts that requests are made of. The language is the row's own, else the
            file's, else `und`.
        protocol: form of the requests: tei (POST /predict), hugging-face (POST /), kserve
            (POST /v2/models/MODEL/infer) or classify (POST /classify).
        model: name of the model, for a server with several; kserve always needs it.
        rates: requests a second, one step each, such as 10,20,40 [default: from half of what one
            client alone gets, growing by half until the goal is missed].
        arrivals: when requests are sent: poisson (as of many independent users) or constant.
            Neither waits for answers.
        rows: numbers of texts of a request, which are drawn equally often, such as 1,8.
        seconds: seconds of a step.
        requests: most requests of a step.
        p99_ms: goal for the 99th percentile of the latency; the capacity is the highest rate that
            meets it.
        deadline_ms: an answer that comes later than this does not count as goodput.
        timeout_s: seconds after which a request is given up.
        connections: most connections at once; requests beyond them wait, and their wait counts.
        key_file: file of the server's key, whose first line is sent as a bearer token.
        seed: seed of the texts and the times of the requests.
        out: JSON file to write the report to.
    """

    url: str
    test: CorpusConfig
    protocol: ProtocolName = "tei"
    model: str | None = None
    rates: Annotated[tuple[_Rate, ...] | None, Separated()] = None
    arrivals: Arrivals = "poisson"
    rows: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), Separated()] = (1,)
    seconds: Annotated[float, Gt(0)] = 10.0
    requests: Annotated[int, Ge(1), Le(1_000_000)] = 10_000
    p99_ms: Annotated[float, Gt(0)] = 100.0
    deadline_ms: Annotated[float, Gt(0)] = 1_000.0
    timeout_s: Annotated[float, Gt(0)] = 10.0
    connections: Annotated[int, Ge(1), Le(10_000)] = 512
    key_file: Path | None = None
    seed: Annotated[int, Ge(0)] = 1
    out: Path | None = None

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"`url` {shown(self.url)}: expected an address that begins with http:// or "
                "https://. Give one, such as http://127.0.0.1:8080."
            )
        if self.protocol == "kserve" and self.model is None:
            raise ConfigError(
                "`protocol` kserve: the model's name is part of the address, and `model` is not "
                "given. Give `model`."
            )
