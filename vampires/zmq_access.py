"""Who may connect to the sender of the slow link: ZeroMQ's authentication protocol (ZAP).

A socket asks for each peer at inproc://zeromq.zap.01 of its context: address, mechanism and,
with CURVE, the peer's public key. See rfc.zeromq.org/spec/27.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import zmq
from zmq.utils import z85

from vampires.allowed_peers import LOOPBACK, Network

_PLACE = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_REQUEST_PARTS = 6  # version, request id, domain, address, identity, mechanism; credentials
_YES, _NO = (b"200", b"welcome"), (b"400", b"refused")


class AccessControl:
    """Answers whether a peer may connect. To be made before the socket of its context binds,
    and served often: a peer that is not answered waits.

    allowed: networks of the peers; none: this computer alone, or with peer_keys, any.
    peer_keys: public keys (40 characters of Z85) that may connect; None: any, or no CURVE.
    """

    def __init__(
        self,
        context: zmq.Context,
        allowed: Sequence[Network] = (),
        peer_keys: frozenset[bytes] | None = None,
    ) -> None:
        self._allowed = tuple(allowed) or (() if peer_keys is not None else LOOPBACK)
        self._peer_keys = peer_keys
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_PLACE)

    def serve(self) -> list[str]:
        """Answers all who wait; a line for each that was refused."""
        refusals = []
        while self._socket.poll(0):
            request = self._socket.recv_multipart()
            refusal = self._refusal(request)
            if refusal is not None:
                refusals.append(refusal)
            request_id = request[1] if len(request) > 1 else b""
            answer = _YES if refusal is None else _NO
            self._socket.send_multipart([_VERSION, request_id, *answer, b"", b""])
        return refusals

    def close(self) -> None:
        """Answers nobody any more."""
        self._socket.close()

    def _refusal(self, request: list[bytes]) -> str | None:
        """Why the peer may not connect; None when it may."""
        if len(request) < _REQUEST_PARTS or request[0] != _VERSION:
            return "a peer was refused: ZeroMQ asked in an unknown way"
        address = request[3].decode("ascii", "replace")
        if not self._is_allowed(address):
            return f"{address} was refused: it is not allowed to connect (see --allow)"
        if self._peer_keys is not None and not self._is_known(request):
            return f"{address} was refused: its public key is none of --peer-keys"
        return None

    def _is_allowed(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return not self._allowed or any(address in network for network in self._allowed)

    def _is_known(self, request: list[bytes]) -> bool:
        assert self._peer_keys is not None
        mechanism, credentials = request[_REQUEST_PARTS - 1], request[_REQUEST_PARTS:]
        if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
            return False
        return z85.encode(credentials[0]) in self._peer_keys
