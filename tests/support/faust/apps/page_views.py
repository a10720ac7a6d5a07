"""Counts the views of each page, and serves the counts. Views are keyed by user, so they are grouped by page."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("page-views"), topic_partitions=2)


class View(faust.Record):
    page: str
    user: str
    seconds: float = 0.0


views = app.topic(name("views"), key_type=str, value_type=View)
counts = app.Table("view-counts", key_type=str, value_type=int, default=int, partitions=2)
seconds = app.Table("seconds", key_type=str, value_type=float, default=float, partitions=2)


@app.agent(views)
async def count_views(stream: Any) -> None:
    async for view in stream.group_by(View.page):
        counts[view.page] += 1
        seconds[view.page] += view.seconds


@app.page("/views/{page}/")
@app.table_route(table=counts, match_info="page")
async def show_views(web: Any, request: Any, page: str) -> Any:
    return web.json({"page": page, "views": counts[page]})


@app.page("/view/")
class Views(faust.web.View):
    """Counts a view that a page reports, as any other view."""

    async def post(self, request: Any) -> Any:
        body = await request.json()
        await views.send(key=body["user"], value=View(page=body["page"], user=body["user"]))
        return self.json({"page": body["page"]})
