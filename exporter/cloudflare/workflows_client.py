"""The requests for workflows and instances, and pages of lists."""

import re
from collections.abc import AsyncIterator
from typing import TypeVar
from urllib.parse import quote, urlencode

from exporter.cloudflare.client import ApiClient
from exporter.cloudflare.models import Detail, ListedWorkflow, Row, Summary, WorkflowVersion
from exporter.cloudflare.pagination import PAGE_SIZE, Page, read_pages

Result = TypeVar("Result")

_MAX_WORKFLOW_PAGES = 100
_ROW = re.compile(r"\$\.result\[\d+\]")


class WorkflowsClient(ApiClient):
    """The workflows and instances of one account. Every method raises `RequestFailed`."""

    async def instance(self, workflow: str, instance_id: str) -> Summary:
        """An instance without its steps (`simple=true`)."""
        url = self._instance_url(workflow, instance_id)
        return (await self.send("instance", f"{url}?simple=true", Summary)).required

    async def instance_detail(self, workflow: str, instance_id: str) -> tuple[Detail, int]:
        """An instance with all its steps, and the bytes of the response."""
        url = self._instance_url(workflow, instance_id)
        response = await self.send("instance", f"{url}?simple=false&order=asc", Detail)
        return response.required, response.size

    async def instances(self, workflow: str, parameters: dict[str, str]) -> Page[Row]:
        """A page of a workflow's instances, newest first.

        Args:
            workflow: Its name.
            parameters: `per_page`, optionally `status` and `date_start`, and which page.
        """
        url = f"{self._workflow_url(workflow)}/instances"
        return await self._page("instances", url, list[Row], parameters)

    async def workflow(self, workflow: str) -> ListedWorkflow:
        """A workflow with the platform's counts of its instances."""
        return (await self.send("workflow", self._workflow_url(workflow), ListedWorkflow)).required

    def workflows(self) -> AsyncIterator[list[ListedWorkflow]]:
        """The account's workflows, page by page."""
        url = f"{self.base_url}/workflows"
        return read_pages(
            lambda parameters: self._page("workflows", url, list[ListedWorkflow], parameters),
            {"page": "1", "per_page": str(PAGE_SIZE)},
            key=lambda row: row.name,
            max_pages=_MAX_WORKFLOW_PAGES,
        )

    async def versions(self, workflow: str) -> list[WorkflowVersion]:
        """The latest versions of a workflow."""
        url = f"{self._workflow_url(workflow)}/versions?per_page=10"
        return (await self.send("versions", url, list[WorkflowVersion])).result or []

    def _workflow_url(self, workflow: str) -> str:
        return f"{self.base_url}/workflows/{quote(workflow, safe='')}"

    def _instance_url(self, workflow: str, instance_id: str) -> str:
        name = quote(instance_id, safe="")
        if name in (".", ".."):
            # Otherwise they would be removed from the path (RFC 3986, section 5.2.4).
            name = name.replace(".", "%2E")
        return f"{self._workflow_url(workflow)}/instances/{name}"

    async def _page(
        self, endpoint: str, url: str, kind: type[list[Result]], parameters: dict[str, str]
    ) -> Page[Result]:
        response = await self.send(endpoint, f"{url}?{urlencode(parameters)}", kind)
        rows = response.result or []
        sent = len(rows) + sum(_ROW.fullmatch(place) is not None for place in response.ignored)
        return Page(rows, response.info, sent, full=sent >= int(parameters["per_page"]))
