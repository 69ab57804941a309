"""Shows the audit log."""

from queue_service.admin.listing import page_of_entries
from queue_service.admin.reach import Reach
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.tables import audit_log


class Entries:
    """Reads the log, which nothing here can change."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def list(self, request: pb.ListAuditEntriesRequest) -> pb.ListAuditEntriesResponse:
        """One page of what was changed in an organisation, the latest first.

        Raises:
            InvalidArgument: `INVALID_PAGE_TOKEN`.
            NotFound: `ORGANISATION_NOT_FOUND`, `PROJECT_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.connect() as connection:
            rows = await reach.belongings(
                connection, audit_log, request.organisation_id, request.project_id
            )
            page, token = await page_of_entries(connection, request, rows)
        return pb.ListAuditEntriesResponse(entries=page, next_page_token=token)
