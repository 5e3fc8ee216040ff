"""The heatmap as a Plotly figure without data: the page fills it in and changes it by view."""

from __future__ import annotations

import json
from typing import Any

_HEIGHT = 520
_MARGIN = {"l": 120, "r": 8, "t": 34, "b": 46}


def base_figure(duration_s: float, columns: int) -> dict[str, Any]:
    """Trace, layout and configuration of the heatmap, as plain JSON values.

    Rows are equally high and cells are addressed by number; the page labels the rows with their
    real limits. Tick labels and hover texts are the page's, so that no name reaches Plotly's own
    reading of HTML-like tags.

    Args:
        duration_s: What the x axis spans, seconds from the start of the recording.
        columns: Time bins in it.
    """
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Heatmap(
            z=[[0]],
            x0=duration_s / columns / 2,
            dx=duration_s / columns,
            y0=0,
            dy=1,
            hoverinfo="none",
            xgap=0,
            ygap=0,
            zsmooth=False,
            colorbar={"thickness": 12, "len": 1, "outlinewidth": 0, "xpad": 6},
        ),
        go.Layout(
            template="none",
            height=_HEIGHT,
            margin=_MARGIN,
            dragmode="select",
            hovermode="closest",
            showlegend=False,
            paper_bgcolor="rgba(0,0,0,0)",
            xaxis={
                "range": [0, duration_s],
                "title": {"text": "time since the recording began (s)", "standoff": 8},
                "zeroline": False,
                "showgrid": False,
                "ticks": "outside",
                "minallowed": 0,
                "maxallowed": duration_s,
            },
            yaxis={
                "zeroline": False,
                "showgrid": False,
                "ticks": "outside",
                "fixedrange": False,
                "automargin": False,
            },
        ),
    )
    # Through JSON text: plotly's own objects and NumPy scalars become plain values.
    plain: dict[str, Any] = json.loads(str(figure.to_json()))
    plain["config"] = {
        "displaylogo": False,
        # The page sets both sizes.
        "responsive": False,
        "displayModeBar": True,
        # Named one by one: Plotly's default set can send the figure to a server.
        "modeBarButtons": [
            ["select2d", "zoom2d", "pan2d"],
            ["zoomIn2d", "zoomOut2d", "resetScale2d"],
            ["toImage"],
        ],
        "toImageButtonOptions": {"filename": "sltrace-heatmap", "scale": 2},
    }
    return plain
