"""The same command on several machines at once, this one among them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vampires.commands.common import UserError

if TYPE_CHECKING:
    from vampires.config_models import HostConfig

Told = dict[str, Any]
"""What a command with --json says; {"error": TEXT} where it could not be asked."""


def on_machines(
    hosts: Sequence[HostConfig],
    prog: str,
    arguments: Sequence[str],
    here: Callable[[], Told],
    *,
    timeout_s: float,
) -> dict[str, Told]:
    """What each machine says, by its name, in the order given. On others `prog --local --json
    ARGUMENTS` runs by ssh; one that cannot be reached does not keep the others waiting."""
    told: dict[str, Told] = {host.name: {} for host in hosts}
    threads = []
    for host in hosts:
        if not host.is_local():
            words = ["--local", "--json", *arguments]
            args = (told, host, prog, words, timeout_s)
            threads.append(threading.Thread(target=_ask_there, args=args, daemon=True))
            threads[-1].start()
    for host in hosts:
        if host.is_local():
            try:
                told[host.name] = here()
            except UserError as error:
                told[host.name] = {"error": str(error)}
    for thread in threads:
        thread.join()
    return told


def _ask_there(
    told: dict[str, Told], host: HostConfig, prog: str, words: list[str], timeout_s: float
) -> None:
    from vampires.hosts import HostUnreachable, capture_there

    try:
        done = capture_there(host, prog, words, timeout_s=timeout_s)
    except HostUnreachable as error:
        told[host.name] = {"error": str(error)}
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    try:
        answer = json.loads(done.stdout)
        if not isinstance(answer, dict):
            raise ValueError("no object")
        told[host.name] = answer
        for line in lines:
            print(f"{host.name}: {line}", file=sys.stderr)
    except ValueError:
        text = lines[-1] if lines else f"{prog} ended with {done.returncode} and no answer"
        told[host.name] = {"error": f"host {host.name}: {text}"}
