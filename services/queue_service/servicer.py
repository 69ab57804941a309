"""QueueService on the wire: a message in, a message out. What calls do stands in the use cases."""

from typing import Any

import grpc

from queue_service.administering import Administrator
from queue_service.browsing import Browser
from queue_service.purging import Purger
from queue_service.redriving import Redriver
from taskforge.v1 import queue_service_pb2 as pb
from taskforge.v1.queue_service_pb2_grpc import QueueServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class QueueServicer(QueueServiceServicer):
    """Serves `taskforge.v1.QueueService`; its errors are translated by the server's interceptor."""

    def __init__(
        self, administrator: Administrator, browser: Browser, purger: Purger, redriver: Redriver
    ) -> None:
        self._administrator = administrator
        self._browser = browser
        self._purger = purger
        self._redriver = redriver

    async def CreateQueue(
        self, request: pb.CreateQueueRequest, context: Context
    ) -> pb.CreateQueueResponse:
        return pb.CreateQueueResponse(queue=await self._administrator.create(request))

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.GetQueueResponse:
        return pb.GetQueueResponse(queue=await self._browser.get(request))

    async def ListQueues(
        self, request: pb.ListQueuesRequest, context: Context
    ) -> pb.ListQueuesResponse:
        return await self._browser.list(request)

    async def UpdateQueue(
        self, request: pb.UpdateQueueRequest, context: Context
    ) -> pb.UpdateQueueResponse:
        return pb.UpdateQueueResponse(queue=await self._administrator.update(request))

    async def DeleteQueue(
        self, request: pb.DeleteQueueRequest, context: Context
    ) -> pb.DeleteQueueResponse:
        await self._administrator.delete(request)
        return pb.DeleteQueueResponse()

    async def PauseQueue(
        self, request: pb.PauseQueueRequest, context: Context
    ) -> pb.PauseQueueResponse:
        return pb.PauseQueueResponse(queue=await self._administrator.pause(request))

    async def ResumeQueue(
        self, request: pb.ResumeQueueRequest, context: Context
    ) -> pb.ResumeQueueResponse:
        return pb.ResumeQueueResponse(queue=await self._administrator.resume(request))

    async def GetQueueStats(
        self, request: pb.GetQueueStatsRequest, context: Context
    ) -> pb.GetQueueStatsResponse:
        return await self._browser.stats(request)

    async def PurgeQueue(
        self, request: pb.PurgeQueueRequest, context: Context
    ) -> pb.PurgeQueueResponse:
        return await self._purger.purge(request)

    async def RedriveJobs(
        self, request: pb.RedriveJobsRequest, context: Context
    ) -> pb.RedriveJobsResponse:
        return await self._redriver.redrive(request)
