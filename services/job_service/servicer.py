"""JobService on the wire: a message in, a message out. What calls do stands in the use cases."""

from dataclasses import dataclass
from typing import Any

import grpc

from job_service.acquiring import Acquirer
from job_service.browsing import JobBrowser
from job_service.changing import JobChanger
from job_service.enqueueing import Enqueuer
from job_service.heartbeating import Heartbeats
from job_service.settling import Settler
from job_service.staffing import Staff
from job_service.streaming import Streamer
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class UseCases:
    """What JobService can do."""

    enqueuer: Enqueuer
    browser: JobBrowser
    changer: JobChanger
    streamer: Streamer
    acquirer: Acquirer
    heartbeats: Heartbeats
    settler: Settler
    staff: Staff


class JobServicer(JobServiceServicer):
    """Serves `taskforge.v1.JobService`; its errors are translated by the server's interceptor."""

    def __init__(self, use_cases: UseCases) -> None:
        self._do = use_cases

    async def CreateJob(
        self, request: pb.CreateJobRequest, context: Context
    ) -> pb.CreateJobResponse:
        return pb.CreateJobResponse(job=await self._do.enqueuer.create(request))

    async def BatchCreateJobs(
        self, request: pb.BatchCreateJobsRequest, context: Context
    ) -> pb.BatchCreateJobsResponse:
        return await self._do.enqueuer.create_batch(request)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=await self._do.browser.get(request))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return await self._do.browser.list(request)

    async def GetJobStats(
        self, request: pb.GetJobStatsRequest, context: Context
    ) -> pb.GetJobStatsResponse:
        return await self._do.browser.stats(request)

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=await self._do.changer.cancel(request))

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        return pb.RetryJobResponse(job=await self._do.changer.retry(request))

    # It writes to its context instead of yielding, so that a write can have a time limit.
    async def LeaseJobs(  # type: ignore[override]
        self, request: pb.LeaseJobsRequest, context: Context
    ) -> None:
        await self._do.streamer.stream(request, context)

    async def AcquireJobs(
        self, request: pb.AcquireJobsRequest, context: Context
    ) -> pb.AcquireJobsResponse:
        return await self._do.acquirer.acquire(request, context)

    async def Heartbeat(
        self, request: pb.HeartbeatRequest, context: Context
    ) -> pb.HeartbeatResponse:
        return await self._do.heartbeats.beat(request)

    async def CompleteJob(
        self, request: pb.CompleteJobRequest, context: Context
    ) -> pb.CompleteJobResponse:
        settlement = pb.Settlement(
            lease_token=request.lease_token, success=pb.Success(result=request.result)
        )
        return pb.CompleteJobResponse(status=await self._do.settler.settle(settlement))

    async def FailJob(self, request: pb.FailJobRequest, context: Context) -> pb.FailJobResponse:
        settlement = pb.Settlement(lease_token=request.lease_token, failure=request.failure)
        return pb.FailJobResponse(status=await self._do.settler.settle(settlement))

    async def ReleaseJob(
        self, request: pb.ReleaseJobRequest, context: Context
    ) -> pb.ReleaseJobResponse:
        settlement = pb.Settlement(lease_token=request.lease_token, release=pb.Release())
        return pb.ReleaseJobResponse(status=await self._do.settler.settle(settlement))

    async def BatchSettleJobs(
        self, request: pb.BatchSettleJobsRequest, context: Context
    ) -> pb.BatchSettleJobsResponse:
        return await self._do.settler.settle_batch(request)

    async def UpdateWorker(
        self, request: pb.UpdateWorkerRequest, context: Context
    ) -> pb.UpdateWorkerResponse:
        return pb.UpdateWorkerResponse(worker=await self._do.staff.update(request))

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        return await self._do.staff.list(request)
