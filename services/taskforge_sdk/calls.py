"""The table of calls: which RPCs there are, and which of them may be repeated.

A `Call` is a request together with what its answer means, without a transport: the blocking and the
asynchronous client send the same calls.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from taskforge.v1 import admin_service_pb2 as admin
from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1 import queue_service_pb2 as queues
from taskforge_sdk.errors import TaskForgeError

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")
Item = TypeVar("Item")


class Service(enum.Enum):
    """The services of the contract, each with a channel of its own."""

    QUEUES = "QueueService"
    JOBS = "JobService"
    ADMIN = "AdminService"
    """Beside QueueService, on the same address."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """A request on its way to `rpc`, and how to read the answer."""

    rpc: "Rpc[Any, Any]"
    request: Message
    decode: Callable[[Any], Result]


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Request, Response]):
    """An RPC; `repeatable` where doing it twice leaves what doing it once leaves.

    `seconds`: how long one attempt may take at most where it goes through many jobs; None: the
    client's timeout, or less, as for every RPC that ends soon.
    """

    service: Service
    name: str
    repeatable: bool
    seconds: float | None = None

    def call(self, request: Request, decode: Callable[[Response], Result]) -> Call[Result]:
        """Bind a request and the reading of its answer."""
        return Call(self, request, decode)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list, and the token of the next part; empty on the last."""

    items: list[Item]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """A list that is fetched page by page: `page` takes a page token, empty for the first."""

    page: Callable[[str], Call[Page[Item]]]


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """One call of several that together do one thing, and its results should it fail.

    `otherwise` is what stands for each of its items once an earlier batch has had an effect.
    """

    call: Call[list[Item]]
    otherwise: Callable[[TaskForgeError], list[Item]]


# A second CreateQueue would be refused with QUEUE_NAME_TAKEN, a second DeleteQueue with
# QUEUE_NOT_FOUND, a second RetryJob with JOB_NOT_FAILED, though the first had succeeded.
CREATE_QUEUE: Final[Rpc[queues.CreateQueueRequest, queues.CreateQueueResponse]] = Rpc(
    Service.QUEUES, "CreateQueue", repeatable=False
)
GET_QUEUE: Final[Rpc[queues.GetQueueRequest, queues.GetQueueResponse]] = Rpc(
    Service.QUEUES, "GetQueue", repeatable=True
)
LIST_QUEUES: Final[Rpc[queues.ListQueuesRequest, queues.ListQueuesResponse]] = Rpc(
    Service.QUEUES, "ListQueues", repeatable=True
)
UPDATE_QUEUE: Final[Rpc[queues.UpdateQueueRequest, queues.UpdateQueueResponse]] = Rpc(
    Service.QUEUES, "UpdateQueue", repeatable=True
)
DELETE_QUEUE: Final[Rpc[queues.DeleteQueueRequest, queues.DeleteQueueResponse]] = Rpc(
    Service.QUEUES, "DeleteQueue", repeatable=False
)
PAUSE_QUEUE: Final[Rpc[queues.PauseQueueRequest, queues.PauseQueueResponse]] = Rpc(
    Service.QUEUES, "PauseQueue", repeatable=True
)
RESUME_QUEUE: Final[Rpc[queues.ResumeQueueRequest, queues.ResumeQueueResponse]] = Rpc(
    Service.QUEUES, "ResumeQueue", repeatable=True
)
GET_QUEUE_STATS: Final[Rpc[queues.GetQueueStatsRequest, queues.GetQueueStatsResponse]] = Rpc(
    Service.QUEUES, "GetQueueStats", repeatable=True
)

# They go through all of a queue's jobs, thousands a second. A purge that is done again removes the
# rest of what was asked for. A second redrive would take max_jobs once more, at a pace of its own,
# and take back anew what has failed since.
_LONG: Final = 600.0
PURGE_QUEUE: Final[Rpc[queues.PurgeQueueRequest, queues.PurgeQueueResponse]] = Rpc(
    Service.QUEUES, "PurgeQueue", repeatable=True, seconds=_LONG
)
REDRIVE_JOBS: Final[Rpc[queues.RedriveJobsRequest, queues.RedriveJobsResponse]] = Rpc(
    Service.QUEUES, "RedriveJobs", repeatable=False, seconds=_LONG
)

# Creations carry a request_id always, so that a second returns what the first made.
CREATE_JOB: Final[Rpc[jobs.CreateJobRequest, jobs.CreateJobResponse]] = Rpc(
    Service.JOBS, "CreateJob", repeatable=True
)
BATCH_CREATE_JOBS: Final[Rpc[jobs.BatchCreateJobsRequest, jobs.BatchCreateJobsResponse]] = Rpc(
    Service.JOBS, "BatchCreateJobs", repeatable=True
)
GET_JOB: Final[Rpc[jobs.GetJobRequest, jobs.GetJobResponse]] = Rpc(
    Service.JOBS, "GetJob", repeatable=True
)
LIST_JOBS: Final[Rpc[jobs.ListJobsRequest, jobs.ListJobsResponse]] = Rpc(
    Service.JOBS, "ListJobs", repeatable=True
)
GET_JOB_STATS: Final[Rpc[jobs.GetJobStatsRequest, jobs.GetJobStatsResponse]] = Rpc(
    Service.JOBS, "GetJobStats", repeatable=True
)
CANCEL_JOB: Final[Rpc[jobs.CancelJobRequest, jobs.CancelJobResponse]] = Rpc(
    Service.JOBS, "CancelJob", repeatable=True
)
RETRY_JOB: Final[Rpc[jobs.RetryJobRequest, jobs.RetryJobResponse]] = Rpc(
    Service.JOBS, "RetryJob", repeatable=False
)
UPDATE_WORKER: Final[Rpc[jobs.UpdateWorkerRequest, jobs.UpdateWorkerResponse]] = Rpc(
    Service.JOBS, "UpdateWorker", repeatable=True
)
LIST_WORKERS: Final[Rpc[jobs.ListWorkersRequest, jobs.ListWorkersResponse]] = Rpc(
    Service.JOBS, "ListWorkers", repeatable=True
)

# A second creation would be refused because of the name that the first took, or make a second key.
CREATE_ORGANISATION: Final[
    Rpc[admin.CreateOrganisationRequest, admin.CreateOrganisationResponse]
] = Rpc(Service.ADMIN, "CreateOrganisation", repeatable=False)
GET_ORGANISATION: Final[Rpc[admin.GetOrganisationRequest, admin.GetOrganisationResponse]] = Rpc(
    Service.ADMIN, "GetOrganisation", repeatable=True
)
LIST_ORGANISATIONS: Final[Rpc[admin.ListOrganisationsRequest, admin.ListOrganisationsResponse]] = (
    Rpc(Service.ADMIN, "ListOrganisations", repeatable=True)
)
UPDATE_ORGANISATION: Final[
    Rpc[admin.UpdateOrganisationRequest, admin.UpdateOrganisationResponse]
] = Rpc(Service.ADMIN, "UpdateOrganisation", repeatable=True)
CREATE_PROJECT: Final[Rpc[admin.CreateProjectRequest, admin.CreateProjectResponse]] = Rpc(
    Service.ADMIN, "CreateProject", repeatable=False
)
GET_PROJECT: Final[Rpc[admin.GetProjectRequest, admin.GetProjectResponse]] = Rpc(
    Service.ADMIN, "GetProject", repeatable=True
)
LIST_PROJECTS: Final[Rpc[admin.ListProjectsRequest, admin.ListProjectsResponse]] = Rpc(
    Service.ADMIN, "ListProjects", repeatable=True
)
UPDATE_PROJECT: Final[Rpc[admin.UpdateProjectRequest, admin.UpdateProjectResponse]] = Rpc(
    Service.ADMIN, "UpdateProject", repeatable=True
)
CREATE_API_KEY: Final[Rpc[admin.CreateApiKeyRequest, admin.CreateApiKeyResponse]] = Rpc(
    Service.ADMIN, "CreateApiKey", repeatable=False
)
GET_API_KEY: Final[Rpc[admin.GetApiKeyRequest, admin.GetApiKeyResponse]] = Rpc(
    Service.ADMIN, "GetApiKey", repeatable=True
)
LIST_API_KEYS: Final[Rpc[admin.ListApiKeysRequest, admin.ListApiKeysResponse]] = Rpc(
    Service.ADMIN, "ListApiKeys", repeatable=True
)
REVOKE_API_KEY: Final[Rpc[admin.RevokeApiKeyRequest, admin.RevokeApiKeyResponse]] = Rpc(
    Service.ADMIN, "RevokeApiKey", repeatable=True
)
LIST_AUDIT_ENTRIES: Final[Rpc[admin.ListAuditEntriesRequest, admin.ListAuditEntriesResponse]] = Rpc(
    Service.ADMIN, "ListAuditEntries", repeatable=True
)

ALL: Final[tuple[Rpc[Any, Any], ...]] = (
    CREATE_QUEUE, GET_QUEUE, LIST_QUEUES, UPDATE_QUEUE, DELETE_QUEUE, PAUSE_QUEUE, RESUME_QUEUE,
    GET_QUEUE_STATS, PURGE_QUEUE, REDRIVE_JOBS, CREATE_JOB, BATCH_CREATE_JOBS, GET_JOB, LIST_JOBS,
    GET_JOB_STATS, CANCEL_JOB, RETRY_JOB, UPDATE_WORKER, LIST_WORKERS, CREATE_ORGANISATION,
    GET_ORGANISATION, LIST_ORGANISATIONS, UPDATE_ORGANISATION, CREATE_PROJECT, GET_PROJECT,
    LIST_PROJECTS, UPDATE_PROJECT, CREATE_API_KEY, GET_API_KEY, LIST_API_KEYS, REVOKE_API_KEY,
    LIST_AUDIT_ENTRIES,
)  # fmt: skip
"""Every RPC that the clients call."""
