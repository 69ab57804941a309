"""AdminService on the wire: a message in, a message out. What calls do stands in the use cases."""

from typing import Any

import grpc

from queue_service.admin.entries import Entries
from queue_service.admin.keys import Keys
from queue_service.admin.organisations import Organisations
from queue_service.admin.projects import TenantProjects
from taskforge.v1 import admin_service_pb2 as pb
from taskforge.v1.admin_service_pb2_grpc import AdminServiceServicer
from taskforge_core.database import Database

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(AdminServiceServicer):
    """Serves `taskforge.v1.AdminService`; its errors are translated by the server's interceptor."""

    def __init__(self, database: Database) -> None:
        self._organisations = Organisations(database)
        self._projects = TenantProjects(database)
        self._keys = Keys(database)
        self._entries = Entries(database)

    async def CreateOrganisation(
        self, request: pb.CreateOrganisationRequest, context: Context
    ) -> pb.CreateOrganisationResponse:
        return pb.CreateOrganisationResponse(organisation=await self._organisations.create(request))

    async def GetOrganisation(
        self, request: pb.GetOrganisationRequest, context: Context
    ) -> pb.GetOrganisationResponse:
        return pb.GetOrganisationResponse(organisation=await self._organisations.get(request))

    async def ListOrganisations(
        self, request: pb.ListOrganisationsRequest, context: Context
    ) -> pb.ListOrganisationsResponse:
        return await self._organisations.list(request)

    async def UpdateOrganisation(
        self, request: pb.UpdateOrganisationRequest, context: Context
    ) -> pb.UpdateOrganisationResponse:
        return pb.UpdateOrganisationResponse(organisation=await self._organisations.update(request))

    async def CreateProject(
        self, request: pb.CreateProjectRequest, context: Context
    ) -> pb.CreateProjectResponse:
        return pb.CreateProjectResponse(project=await self._projects.create(request))

    async def GetProject(
        self, request: pb.GetProjectRequest, context: Context
    ) -> pb.GetProjectResponse:
        return pb.GetProjectResponse(project=await self._projects.get(request))

    async def ListProjects(
        self, request: pb.ListProjectsRequest, context: Context
    ) -> pb.ListProjectsResponse:
        return await self._projects.list(request)

    async def UpdateProject(
        self, request: pb.UpdateProjectRequest, context: Context
    ) -> pb.UpdateProjectResponse:
        return pb.UpdateProjectResponse(project=await self._projects.update(request))

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        return await self._keys.create(request)

    async def GetApiKey(
        self, request: pb.GetApiKeyRequest, context: Context
    ) -> pb.GetApiKeyResponse:
        return pb.GetApiKeyResponse(api_key=await self._keys.get(request))

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: Context
    ) -> pb.ListApiKeysResponse:
        return await self._keys.list(request)

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: Context
    ) -> pb.RevokeApiKeyResponse:
        return pb.RevokeApiKeyResponse(api_key=await self._keys.revoke(request))

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        return await self._entries.list(request)
