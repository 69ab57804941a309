"""The settings of a command: the environment, and above it the options of the command line."""

from typing import Any

from pydantic import ValidationError

from taskforge_cli.failures import CommandError, usage_error
from taskforge_core.settings import Settings

_OPTIONS = {
    "data_folder": "--data-folder",
    "database_url": "--database-url",
    "job_address": "--job-address",
    "queue_address": "--queue-address",
}


def load_settings(**options: object) -> Settings:
    """Read the settings; an option that is None leaves the environment's word.

    Raises:
        CommandError: A value is wrong; the line names the variable or the option it came from.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _explain(error, given) from None


def _explain(error: ValidationError, given: dict[str, object]) -> CommandError:
    first = error.errors()[0]
    words = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return usage_error(f"the settings do not fit together: {words}")
    field = str(first["loc"][0]).lower().removeprefix("taskforge_")
    source = _OPTIONS[field] if field in given else f"TASKFORGE_{field.upper()}"
    return usage_error(f"{source}: {words}")
