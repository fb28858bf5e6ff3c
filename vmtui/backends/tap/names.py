"""Names and addresses that follow from a ref alone, so that a half-made thing is found again without any record."""

from __future__ import annotations

import re

from vmtui.core.backend import Context
from vmtui.core.errors import InvalidInput
from vmtui.core.resource import Ref

# IFNAMSIZ is 16 with the final zero (include/uapi/linux/if.h): a prefix of three and ten hex digits fit.
BRIDGE, TAP, VETH, PEER = "vmb", "vmt", "vmv", "vmp"
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")


def bridge_name(context: Context, network: Ref) -> str:
    return BRIDGE + network.token(context.workspace)


def port_token(context: Context, network: Ref, consumer: Ref, index: int) -> str:
    return consumer.token(context.workspace, str(network), str(index))


def mac(token: str, first: int = 0x02) -> str:
    """A locally administered unicast address (IEEE 802: bit 1 of the first byte set, bit 0 clear)."""
    return ":".join([f"{first:02x}", *(token[at : at + 2] for at in range(0, 10, 2))])


def host_mac(token: str) -> str:
    """Of the host's end, which must differ from the member's."""
    return mac(token, 0x06)


def host_name(text: str, what: str) -> str:
    """A host name or domain as RFC 1123 has it, in lower case. Raises InvalidInput."""
    lowered = text.lower()
    if not HOST_NAME.fullmatch(lowered):
        hint = f'{what.rpartition(" ")[2]} = "lab"'
        raise InvalidInput(f"{what} {text!r} is not a host name (a-z, 0-9, - and dots)", hint=hint)
    return lowered
