"""The quotas of projects and organisations as options of the command."""

import enum
from typing import Annotated, cast

import typer

from taskforge_cli.failures import usage_error
from taskforge_sdk import QuotasChange


class Quota(enum.StrEnum):
    """A quota by the name of its option."""

    MAX_JOBS_PER_SECOND = "max-jobs-per-second"
    MAX_UNFINISHED_JOBS = "max-unfinished-jobs"
    MAX_QUEUES = "max-queues"
    MAX_LEASE_STREAMS = "max-lease-streams"
    MAX_REQUEST_BYTES = "max-request-bytes"

    @property
    def field(self) -> str:
        """Its name in the contract."""
        return self.value.replace("-", "_")


def _option(quota: Quota, help: str) -> typer.models.OptionInfo:  # noqa: A002 - typer's word
    option: typer.models.OptionInfo = typer.Option(
        f"--{quota}", metavar="N", help=help, show_default=False
    )
    return option


MaxJobsPerSecond = Annotated[
    int | None, _option(Quota.MAX_JOBS_PER_SECOND, "Jobs created in a second.")
]
MaxUnfinishedJobs = Annotated[
    int | None,
    _option(Quota.MAX_UNFINISHED_JOBS, "Jobs that are pending, scheduled or processing."),
]
MaxQueues = Annotated[int | None, _option(Quota.MAX_QUEUES, "Queues.")]
MaxLeaseStreams = Annotated[
    int | None, _option(Quota.MAX_LEASE_STREAMS, "Open streams of workers.")
]
MaxRequestBytes = Annotated[
    int | None, _option(Quota.MAX_REQUEST_BYTES, "Bytes of one request, at least 1,024.")
]
Unlimited = Annotated[
    list[Quota] | None,
    typer.Option(
        "--unlimited",
        metavar="QUOTA",
        help="A quota to lift, such as max-queues; may be given several times.",
    ),
]

MaxProjects = Annotated[
    str | None,
    typer.Option(
        "--max-projects", metavar="N|none", help="Projects, disabled ones included.",
        show_default=False,
    ),
]  # fmt: skip


def limit_of(option: str, text: str) -> int | None:
    """The limit that an option gives; None where it lifts it.

    Raises:
        CommandError: It is neither a number nor `none`.
    """
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise usage_error(f"{option} takes a number or none, not {text!r}") from None


def quotas_change(given: dict[str, int | None], unlimited: list[Quota] | None) -> QuotasChange:
    """What the options of a command ask for.

    Raises:
        CommandError: A quota is both set and lifted.
    """
    change: dict[str, int | None] = {
        name: limit for name, limit in given.items() if limit is not None
    }
    for quota in unlimited or []:
        if change.get(quota.field) is not None:
            raise usage_error(f"--{quota} and --unlimited {quota} exclude each other")
        change[quota.field] = None
    # The keys are those of QuotasChange, one an option.
    return cast("QuotasChange", change)
