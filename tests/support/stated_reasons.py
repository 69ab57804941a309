"""Which reasons the contract's comments name for each RPC, and with which code each goes."""

import re
from pathlib import Path

from taskforge.v1 import error_reason_pb2

_PROTOS = Path(__file__).parents[2] / "protos/taskforge/v1"
REASONS = {
    name.removeprefix("ERROR_REASON_")
    for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    if name != "ERROR_REASON_UNSPECIFIED"
}
_COMMENTED = re.compile(r"((?:^ *//[^\n]*\n)+) *(service|rpc) (\w+)", re.MULTILINE)

_OF_CREDENTIALS = {
    "UNAUTHENTICATED": (
        "CREDENTIAL_MISSING",
        "CREDENTIAL_INVALID",
        "CREDENTIAL_EXPIRED",
        "CREDENTIAL_REVOKED",
    ),
    "PERMISSION_DENIED": ("PERMISSION_MISSING",),
}
"""A comment that names one of these codes means all of its reasons."""

_SAME_AS = {"BatchSettleJobs": ("CompleteJob", "FailJob", "ReleaseJob")}
"""Whose reasons a comment means by other words than their names."""


def stated_reasons() -> dict[str, set[str]]:
    """By RPC: the reasons in its comment, in its service's, and in those of RPCs it refers to."""
    own: dict[str, set[str]] = {}
    for file in sorted(_PROTOS.glob("*_service.proto")):
        of_service: set[str] = set()
        comments: dict[str, str] = {}
        for comment, kind, name in _COMMENTED.findall(file.read_text()):
            if kind == "service":
                of_service = _named(comment)
            else:
                comments[name] = comment
        for name, comment in comments.items():
            others = [
                comments[other]
                for other in comments
                if re.search(rf"(?:reasons of|as) {other}\b", comment)
                or other in _SAME_AS.get(name, ())
            ]
            own[name] = of_service.union(*map(_named, [comment, *others]))
    return own


def stated_codes() -> dict[str, str]:
    """By reason: the code that its comment begins with."""
    comments = re.findall(
        r"\n  // ([A-Z_]+): (?:[^\n]*\n  // )*[^\n]*\n  ERROR_REASON_([A-Z_]+) =",
        (_PROTOS / "error_reason.proto").read_text(),
    )
    return {reason: code for code, reason in comments}


def _named(comment: str) -> set[str]:
    words = set(re.findall(r"[A-Z_]{4,}", comment))
    meant = {reason for code in words & set(_OF_CREDENTIALS) for reason in _OF_CREDENTIALS[code]}
    return (words & REASONS) | meant
