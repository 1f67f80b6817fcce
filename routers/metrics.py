"""GET /metrics: for Prometheus, and for nobody who comes from elsewhere."""

from hmac import compare_digest
from ipaddress import ip_address

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from core.errors import Forbidden, Unauthorized
from core.metrics import exposition
from routers.addresses import client_address
from routers.answers import failures
from routers.deps import AppResources

router = APIRouter(tags=["operation"])

FROM_AFAR = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@router.get(
    "/metrics",
    response_class=Response,
    responses=failures(Forbidden)
    | {
        200: {"content": {"text/plain": {}}, "description": "The text format of Prometheus."},
    },
)
async def read_metrics(request: Request, resources: AppResources) -> Response:
    """With METRICS_TOKEN for whoever sends it as the bearer; without, only on this machine."""
    settings = resources.settings
    if settings.metrics_token:
        wanted = "Bearer " + settings.metrics_token.get_secret_value()
        sent = request.headers.get("authorization", "")
        if not compare_digest(sent.encode(), wanted.encode()):
            raise Unauthorized("Send METRICS_TOKEN: Authorization: Bearer …")
    elif settings.uses_supabase_auth or settings.trusted_proxies or not _is_local(request):
        raise Forbidden("Set METRICS_TOKEN to read the metrics from elsewhere.")
    return Response(exposition(resources), media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    """A proxy on this machine looks like it, but for the headers that proxies add."""
    if any(name in request.headers for name in FROM_AFAR):
        return False
    try:
        return ip_address(client_address(request)).is_loopback
    except ValueError:
        return False
