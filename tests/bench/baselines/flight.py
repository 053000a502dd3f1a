"""Arrow Flight: do_get of record batches of 2 MiB, copied into the receiver's memory.

  flight.py --bytes N --serve    prints "ready <port>"
  flight.py --bytes N --port P   a transfer for each line of stdin, prints the seconds
"""

from __future__ import annotations

import argparse

import pyarrow
import pyarrow.flight
from region import CHUNK_BYTES, make_warm_region, runs, say, time_transfers

SCHEMA = pyarrow.schema([("data", pyarrow.uint8())])


class Server(pyarrow.flight.FlightServerBase):
    def __init__(self, total: int) -> None:
        super().__init__("grpc+tcp://127.0.0.1:0")
        region = pyarrow.py_buffer(make_warm_region(total))
        # Batches borrow the region: Flight sends without copying.
        self._batches = [
            pyarrow.RecordBatch.from_arrays(
                [pyarrow.Array.from_buffers(pyarrow.uint8(), size, [None, region.slice(offset, size)])], schema=SCHEMA
            )
            for offset, size in runs(total, CHUNK_BYTES)
        ]

    def do_get(self, context, ticket):
        reader = pyarrow.RecordBatchReader.from_batches(SCHEMA, self._batches)
        return pyarrow.flight.RecordBatchStream(reader)


def receive_often(port: int, total: int) -> None:
    region = memoryview(make_warm_region(total))
    client = pyarrow.flight.connect(f"grpc+tcp://127.0.0.1:{port}")

    def transfer() -> None:
        received = 0
        for chunk in client.do_get(pyarrow.flight.Ticket(b"")):
            values = chunk.data.column(0)
            region[received : received + len(values)] = memoryview(values.buffers()[1]).cast("B")[: len(values)]
            received += len(values)
        if received != total:
            raise RuntimeError(f"received {received} of {total} bytes")

    time_transfers(transfer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int)
    parser.add_argument("--bytes", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.serve:
        server = Server(arguments.bytes)
        say(f"ready {server.port}")
        server.serve()
    else:
        receive_often(arguments.port, arguments.bytes)


if __name__ == "__main__":
    main()
