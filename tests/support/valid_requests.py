"""A valid request of every RPC of the contract, about somebody's things."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from google.protobuf.message import Message
from tests.support.rpcs import message
from tests.support.things import Things

from taskforge.v1 import permission_pb2

Fields = Callable[[Things], dict[str, Any]]

_SESSION = "session_id"


def _lease(of: Things) -> dict[str, Any]:
    return {
        "project_id": of.project,
        _SESSION: of.session,
        "max_in_flight": 1,
        "queues": [of.empty_queue],
    }


def _queue(of: Things) -> dict[str, Any]:
    return {"project_id": of.project, "queue": of.queue}


def _failed_job(of: Things) -> dict[str, Any]:
    return {"project_id": of.project, "job_id": of.failed_job}


def _spec(of: Things) -> dict[str, Any]:
    return {"queue": of.queue, "job_type": "send"}


REQUESTS: dict[str, Fields] = {
    "CreateOrganisation": lambda _: {"name": f"made-{uuid4()}"},
    "GetOrganisation": lambda of: {"organisation_id": of.organisation},
    "ListOrganisations": lambda _: {},
    "UpdateOrganisation": lambda of: {
        "organisation_id": of.organisation,
        "name": f"named-{uuid4()}",
        "update_mask": {"paths": ["name"]},
    },
    "CreateProject": lambda of: {"organisation_id": of.organisation, "name": f"made-{uuid4()}"},
    "GetProject": lambda of: {"project_id": of.project},
    "ListProjects": lambda of: {"organisation_id": of.organisation},
    "UpdateProject": lambda of: {
        "project_id": of.project,
        "name": f"named-{uuid4()}",
        "update_mask": {"paths": ["name"]},
    },
    "CreateApiKey": lambda of: {
        "organisation_id": of.organisation,
        "name": "made",
        "permissions": [permission_pb2.PERMISSION_ADMIN],
    },
    "GetApiKey": lambda of: {"api_key_id": of.api_key},
    "ListApiKeys": lambda of: {"organisation_id": of.organisation},
    "RevokeApiKey": lambda of: {"api_key_id": of.api_key},
    "ListAuditEntries": lambda of: {"organisation_id": of.organisation},
    "CreateQueue": lambda of: {"project_id": of.project, "name": f"made-{uuid4().hex}"},
    "GetQueue": _queue,
    "ListQueues": lambda of: {"project_id": of.project},
    "UpdateQueue": lambda of: _queue(of) | {"priority": 1, "update_mask": {"paths": ["priority"]}},
    "DeleteQueue": lambda of: {"project_id": of.project, "queue": of.empty_queue},
    "PauseQueue": _queue,
    "ResumeQueue": _queue,
    "GetQueueStats": _queue,
    "PurgeQueue": lambda of: _queue(of) | {"statuses": [1]},
    "RedriveJobs": _queue,
    "CreateJob": lambda of: {"project_id": of.project, "job": _spec(of)},
    "BatchCreateJobs": lambda of: {"project_id": of.project, "jobs": [_spec(of)]},
    "GetJob": _failed_job,
    "ListJobs": lambda of: {"project_id": of.project},
    "GetJobStats": lambda of: {"project_id": of.project},
    "CancelJob": lambda of: {"project_id": of.project, "job_id": of.waiting_job},
    "RetryJob": lambda of: _failed_job(of) | {"additional_attempts": 1},
    "LeaseJobs": _lease,
    "AcquireJobs": _lease,
    "Heartbeat": lambda of: {
        "project_id": of.project,
        _SESSION: of.session,
        "sequence": 1,
        "held": [{"lease_token": of.token}],
    },
    "CompleteJob": lambda of: {"lease_token": of.token},
    "FailJob": lambda of: {"lease_token": of.token, "failure": {"message": "no"}},
    "ReleaseJob": lambda of: {"lease_token": of.token},
    "BatchSettleJobs": lambda of: {"settlements": [{"lease_token": of.token, "release": {}}]},
    "UpdateWorker": lambda of: {
        "project_id": of.project,
        _SESSION: of.session,
        "max_in_flight": 1,
    },
    "ListWorkers": lambda of: {"project_id": of.project},
}

NAMES_NOTHING = {"CreateOrganisation", "ListOrganisations"}
"""Their requests name nobody's things."""


def request(name: str, things: Things) -> Message:
    """The request of an RPC about these things, whose lists have an item each."""
    return message(name, **REQUESTS[name](things))
