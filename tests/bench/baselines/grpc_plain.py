"""What one writes first, in Python: grpcio, generated protobuf, chunks of 2 MiB; see grpc_plain.cc.

  grpc_plain.py --generated DIR --bytes N --serve    prints "ready <port>"
  grpc_plain.py --generated DIR --bytes N --port P   a transfer for each line of stdin, prints the seconds

DIR holds what protoc makes of grpc_plain.proto.
"""

from __future__ import annotations

import argparse
import sys
from concurrent import futures

import grpc
from region import CHUNK_BYTES, make_warm_region, runs, say, time_transfers


def serve(pb2, pb2_grpc, total: int) -> None:
    region = memoryview(make_warm_region(total))

    class Service(pb2_grpc.PlainServicer):
        def Get(self, request, context):
            for offset, size in runs(request.bytes, CHUNK_BYTES):
                data = bytes(region[offset : offset + size])
                yield pb2.Chunk(name="model.layers.0.experts.gate_up_proj", offset=offset, data=data)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    pb2_grpc.add_PlainServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(f"ready {port}")
    server.wait_for_termination()


def receive_often(pb2, pb2_grpc, port: int, total: int) -> None:
    region = make_warm_region(total)
    options = [("grpc.max_receive_message_length", 2 * CHUNK_BYTES)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        stub = pb2_grpc.PlainStub(channel)

        def transfer() -> None:
            received = 0
            for chunk in stub.Get(pb2.Request(bytes=total)):
                region[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
                received += len(chunk.data)
            if received != total:
                raise RuntimeError(f"received {received} of {total} bytes")

        time_transfers(transfer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generated", required=True)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int)
    parser.add_argument("--bytes", type=int, required=True)
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.generated)
    import grpc_plain_pb2
    import grpc_plain_pb2_grpc

    if arguments.serve:
        serve(grpc_plain_pb2, grpc_plain_pb2_grpc, arguments.bytes)
    else:
        receive_often(grpc_plain_pb2, grpc_plain_pb2_grpc, arguments.port, arguments.bytes)


if __name__ == "__main__":
    main()
