"""All waits as one Parquet file, sorted by time, described by its own metadata."""

from __future__ import annotations

import json
from typing import BinaryIO

from sltrace.analysis.losses import losses
from sltrace.analysis.selection import EVERYTHING, Selection
from sltrace.export.rows import ordered_waits
from sltrace.export.sink import Written
from sltrace.trace.reader import Trace
from sltrace.trace.schema import arrow_schema

METADATA_KEY = "sltrace"
"""Key of the file's metadata; its value is JSON: the trace's meta.json, which of its waits
these are, losses and notes."""


def write_parquet(trace: Trace, out: BinaryIO, selection: Selection = EVERYTHING) -> Written:
    """Writes the selected waits.

    Args:
        trace: Where from.
        out: Where to; need not be seekable.
        selection: Waits to write.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    description = {
        "meta": trace.meta,
        "selection": selection.to_json(),
        "losses": losses(trace, selection).to_json(),
        "notes": trace.notes,
    }
    schema = arrow_schema("waits").with_metadata({METADATA_KEY: json.dumps(description)})
    waits = wait_ns = 0
    with pq.ParquetWriter(
        out,
        schema,
        compression="zstd",
        use_dictionary=[f.name for f in schema if f.type != pa.int64()],
        # Half the size of plain for times (measured); ids gain a little.
        column_encoding={f.name: "DELTA_BINARY_PACKED" for f in schema if f.type == pa.int64()},
        sorting_columns=[pq.SortingColumn(schema.get_field_index("end_ns"))],
    ) as writer:
        for rows in ordered_waits(trace, selection):
            writer.write_table(rows.cast(schema))
            waits += rows.num_rows
            wait_ns += pc.sum(rows["wait_ns"]).as_py() or 0
    return Written(waits, wait_ns)
