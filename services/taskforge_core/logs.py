"""Logging: structlog for our own events, the standard library's loggers through the same output.

Everything goes to stderr, as readable lines or as one JSON object a line. Modules take their
logger by `structlog.get_logger(__name__)` and name the event first:
`log.info("serving", address=…)`.
"""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logging(
    log_format: Literal["console", "json"] = "console",
    log_level: Literal["debug", "info", "warning", "error"] = "info",
) -> None:
    """Set up logging for the whole process; calling it again replaces the set-up."""
    level = _LEVELS[log_level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The default prints the values of all variables: secrets among them, and so many
                # that a server stands still for seconds meanwhile.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Libraries report in detail what only matters to their own authors.
    for noisy in ("asyncio", "alembic", "sqlalchemy", "grpc"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
