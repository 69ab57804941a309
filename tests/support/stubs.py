"""The asynchronous stubs' types, which exist for the type checker only."""

from typing import TYPE_CHECKING

from taskforge.v1 import admin_service_pb2_grpc, job_service_pb2_grpc, queue_service_pb2_grpc

if TYPE_CHECKING:
    AdminStub = admin_service_pb2_grpc.AdminServiceAsyncStub
    QueueStub = queue_service_pb2_grpc.QueueServiceAsyncStub
    JobStub = job_service_pb2_grpc.JobServiceAsyncStub
else:
    AdminStub = admin_service_pb2_grpc.AdminServiceStub
    QueueStub = queue_service_pb2_grpc.QueueServiceStub
    JobStub = job_service_pb2_grpc.JobServiceStub
