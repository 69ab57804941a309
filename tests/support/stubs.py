"""The asynchronous stubs' types, which exist for the type checker only."""

from typing import TYPE_CHECKING

from taskforge.v1 import job_service_pb2_grpc, queue_service_pb2_grpc

if TYPE_CHECKING:
    QueueStub = queue_service_pb2_grpc.QueueServiceAsyncStub
    JobStub = job_service_pb2_grpc.JobServiceAsyncStub
else:
    QueueStub = queue_service_pb2_grpc.QueueServiceStub
    JobStub = job_service_pb2_grpc.JobServiceStub
