"""What a route may ask for; the only module that knows Depends."""

from typing import Annotated

from fastapi import Depends, Request

from core.auth import User
from core.errors import Unauthorized
from core.resources import Resources


async def _resources(request: Request) -> Resources:
    resources: Resources = request.state.resources
    return resources


AppResources = Annotated[Resources, Depends(_resources)]


async def _user(request: Request, resources: AppResources) -> User:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("Send an access token: Authorization: Bearer …")
    return await resources.verifier.verify(token.strip())


CurrentUser = Annotated[User, Depends(_user)]
