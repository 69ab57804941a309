"""Options that several commands share."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from taskforge_cli.parsing import parse_duration, parse_time

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name or id.")]

QueueAddress = Annotated[
    str | None,
    typer.Option(
        "--queue-address",
        metavar="HOST:PORT",
        help="Where queue_service is. Default: TASKFORGE_QUEUE_ADDRESS, else 127.0.0.1:50051.",
        show_default=False,
    ),
]

JobAddress = Annotated[
    str | None,
    typer.Option(
        "--job-address",
        metavar="HOST:PORT",
        help="Where job_service is. Default: TASKFORGE_JOB_ADDRESS, else 127.0.0.1:50052.",
        show_default=False,
    ),
]

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="The Postgres to use, as postgresql://…. Default: TASKFORGE_DATABASE_URL, which is"
        " the place for a password: whoever is on this machine can read an option (ps).",
        show_default=False,
    ),
]

DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-folder",
        metavar="FOLDER",
        help="Where the embedded Postgres keeps its data. Default: TASKFORGE_DATA_FOLDER, else"
        " this user's data folder.",
        show_default=False,
    ),
]

Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing, also on a terminal.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]

Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="A label; may be given several times."),
]

PageSize = Annotated[
    int | None,
    typer.Option(
        "--page-size",
        metavar="N",
        help="How many to fetch a call, at most 1,000. Default: as many as are shown.",
        show_default=False,
    ),
]

Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, help="How many to show at most.")
]


def duration_option(name: str, help: str) -> typer.models.OptionInfo:  # noqa: A002 - typer's word
    """An option that takes a duration."""
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="DURATION", parser=parse_duration, help=help, show_default=False
    )
    return option


def time_option(name: str, help: str) -> typer.models.OptionInfo:  # noqa: A002 - typer's word
    """An option that takes a time."""
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="TIME", parser=parse_time, help=help, show_default=False
    )
    return option


Timeout = Annotated[
    timedelta | None,
    duration_option("--timeout", "How long an attempt may run, 1 s to 7 days."),
]
CreatedFrom = Annotated[
    datetime | None, time_option("--created-from", "Only jobs created at this time or later.")
]
CreatedTo = Annotated[
    datetime | None, time_option("--created-to", "Only jobs created before this time.")
]
ScheduledFrom = Annotated[
    datetime | None, time_option("--scheduled-from", "Only jobs scheduled for this time or later.")
]
ScheduledTo = Annotated[
    datetime | None, time_option("--scheduled-to", "Only jobs scheduled for before this time.")
]
