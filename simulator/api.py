"""The simulated API as a function from a request to a response: routes, errors, lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from .api_results import account_result, instance_detail, version_result, workflow_result
from .credentials import Access, AccessDenied, Credential
from .list_pages import instances_page, number, one_of
from .rate_limit import RateLimit
from .request_log import ApiRequest
from .response import ApiError, Response, success
from .world import Account, Workflow, World

PREFIX = "/client/v4"


@dataclass(slots=True)
class Request:
    """A request; `path` is still percent-encoded, header names are in lower case."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes = b""
    query: dict[str, str] = field(init=False)
    segments: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.query = dict(parse_qsl(self.query_string, keep_blank_values=True))
        path = self.path.removeprefix(PREFIX).rstrip("/")
        self.segments = [unquote(part) for part in path.split("/")[1:]]


class Api:
    """Responds to requests about a world, after checking credentials and rate limit."""

    def __init__(self, world: World, access: Access, limit: RateLimit) -> None:
        self.world = world
        self.access = access
        self.limit = limit

    def entry(self, request: Request) -> ApiRequest:
        """The entry of the log for a request: what it is for."""
        entry = ApiRequest(self.world.clock(), request.method, request.path, request.query_string)
        match request.segments:
            case ["accounts"]:
                entry.kind = "accounts"
            case ["accounts", account, "workflows", *rest]:
                entry.account = account
                entry.workflow = rest[0] if rest else ""
                match rest:
                    case []:
                        entry.kind = "workflows"
                    case [_]:
                        entry.kind = "workflow"
                    case [_, "instances"]:
                        entry.kind = "list"
                    case [_, "versions"]:
                        entry.kind = "versions"
                    case [_, "instances", instance]:
                        entry.instance = instance
                        simple = request.query.get("simple") == "true"
                        entry.kind = "simple" if simple else "detail"
            case ["accounts", account, "queues", queue, *rest]:
                kinds = {"": "queue", "messages/pull": "pull", "messages/ack": "ack"}
                entry.account, entry.queue = account, queue
                entry.kind = kinds.get("/".join(rest), "other")
        return entry

    def respond(self, request: Request, entry: ApiRequest) -> Response:
        """The response, as the hosted API would give it."""
        with self.world.lock:
            return self._respond(request, entry)

    def _respond(self, request: Request, entry: ApiRequest) -> Response:
        headers = {"Date": formatdate(self.world.clock(), usegmt=True)}
        try:
            posts = entry.kind in {"pull", "ack"}
            if entry.kind == "other" or request.method != ("POST" if posts else "GET"):
                raise ApiError(404, 7003, f"Could not route to {request.path}")
            credential = self.access.credential(request.headers)
            entry.user = credential.user
            if entry.queue:
                credential.check_queues(entry.account, write=posts)
                response = success(self._queue(request, entry))
                response.headers.update(headers)
                return response
            if entry.kind != "accounts":
                credential.check(entry.account)
            wait = self.limit.take(entry.user)
            headers |= self.limit.headers(entry.user)
            if wait is not None:
                headers["Retry-After"] = str(max(1, round(wait)))
                message = "Rate limited. Please wait and consider throttling your request speed"
                raise ApiError(429, 10429, message)
            if entry.kind == "accounts":
                response = self._accounts(credential, request.query)
            else:
                response = self._result(request, entry)
        except AccessDenied as denied:
            response = ApiError(denied.status, 10000, "Authentication error").response()
        except ApiError as error:
            response = error.response()
        response.headers.update(headers)
        return response

    def _result(self, request: Request, entry: ApiRequest) -> Response:
        now = self.world.settle()
        account = self.world.accounts.get(entry.account)
        if account is None:
            raise ApiError(403, 10000, "Authentication error")
        if entry.kind == "workflows":
            return self._workflows(account, request.query, now)
        workflow = account.workflows.get(entry.workflow)
        if workflow is None:
            raise ApiError(404, 10501, f"Workflow '{entry.workflow}' not found.")
        match entry.kind:
            case "workflow":
                return success(workflow_result(workflow, now))
            case "list":
                return success(*instances_page(self.world, workflow, request.query, now))
            case "versions":
                return self._versions(workflow, request.query)
            case _:
                return self._instance(workflow, entry.instance, request.query, now)

    def _queue(self, request: Request, entry: ApiRequest) -> Any:
        """The result of a request for a queue; these don't count towards the rate limit."""
        now = self.world.settle()
        account = self.world.accounts.get(entry.account)
        queue = account.queues.get(entry.queue) if account else None
        if queue is None:
            raise ApiError(404, 11000, "Queue does not exist")
        if entry.kind == "queue":
            return queue.result()
        try:
            query = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
        except msgspec.MsgspecError:
            raise ApiError(400, 10026, "Could not parse request body") from None
        return (queue.pull if entry.kind == "pull" else queue.ack)(query, now)

    def _accounts(self, credential: Credential, query: Mapping[str, str]) -> Response:
        if credential.account_owned:
            message = "List accounts endpoint does not support account owned tokens."
            raise ApiError(400, 1001, message)
        found = [account for name, account in self.world.accounts.items() if credential.opens(name)]
        page, per_page = number(query, "page", 1), number(query, "per_page", 20, 50)
        chosen = found[(page - 1) * per_page : page * per_page]
        info = _page_info(page, per_page, len(chosen), len(found))
        return success([account_result(account) for account in chosen], info)

    def _instance(
        self, workflow: Workflow, instance_id: str, query: Mapping[str, str], now: int
    ) -> Response:
        simple = one_of(query, "simple", ("true", "false"), "false") == "true"
        descending = one_of(query, "order", ("asc", "desc"), "asc") == "desc"
        instance = workflow.get(instance_id, now)
        if instance is None:
            raise ApiError(404, 10501, f"Workflow instance '{instance_id}' not found.")
        return success(instance_detail(instance, now, simple=simple, descending=descending))

    def _workflows(self, account: Account, query: Mapping[str, str], now: int) -> Response:
        search = query.get("search", "")
        found = [w for name, w in sorted(account.workflows.items()) if search in name]
        page, per_page = self._paging(query)
        chosen = found[(page - 1) * per_page : page * per_page]
        info = _page_info(page, per_page, len(chosen), len(found))
        return success([workflow_result(workflow, now) for workflow in chosen], info)

    def _versions(self, workflow: Workflow, query: Mapping[str, str]) -> Response:
        page, per_page = self._paging(query)
        newest_first = workflow.versions[::-1]
        chosen = newest_first[(page - 1) * per_page : page * per_page]
        info = _page_info(page, per_page, len(chosen), len(newest_first))
        return success([version_result(workflow, version) for version in chosen], info)

    def _paging(self, query: Mapping[str, str]) -> tuple[int, int]:
        largest = self.world.per_page_limit
        return number(query, "page", 1), number(query, "per_page", min(25, largest), largest)


def _page_info(page: int, per_page: int, chosen: int, total: int) -> dict[str, int]:
    return {"page": page, "per_page": per_page, "count": chosen, "total_count": total}
