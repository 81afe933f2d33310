"""What the aux header service is told by configuration and command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

REDIS_PORT = 6379


class HeaderSettings(Protocol):
    """The table [header] of a configuration."""

    @property
    def constants(self) -> Path | None: ...
    @property
    def redis_host(self) -> str | None: ...
    @property
    def redis_port(self) -> int: ...
    @property
    def redis_db(self) -> int: ...
    @property
    def period_s(self) -> float: ...
    @property
    def stale_s(self) -> float: ...


@dataclass(frozen=True)
class HeaderOptions:
    """constants: a TOML file. redis_host None: no Redis. period_s: from one question to Redis
    to the next; stale_s: values of an answer that old are stale.

    Raises ValueError for a stale_s that is not longer than period_s.
    """

    constants: Path | None = None
    redis_host: str | None = None
    redis_port: int = REDIS_PORT
    redis_db: int = 0
    period_s: float = 1.0
    stale_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.stale_s > self.period_s > 0:
            raise ValueError(
                f"values are stale after {self.stale_s:g} s and asked for every "
                f"{self.period_s:g} s; expected stale_s above period_s, and that above 0"
            )

    @property
    def redis_name(self) -> str:
        """HOST:PORT, for messages; empty without Redis."""
        if self.redis_host is None:
            return ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"{host}:{self.redis_port}"


def header_options(settings: HeaderSettings | None) -> HeaderOptions:
    """The options by the table [header]; None: there is no such table. Raises ValueError."""
    if settings is None:
        return HeaderOptions()
    return HeaderOptions(
        constants=settings.constants,
        redis_host=settings.redis_host,
        redis_port=settings.redis_port,
        redis_db=settings.redis_db,
        period_s=settings.period_s,
        stale_s=settings.stale_s,
    )
