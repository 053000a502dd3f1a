"""refit beside other libraries that bring a gRPC, a Protobuf or an Abseil of their own, imported in this order.

beside.py MODULE...     refit among them
"""

from __future__ import annotations

import importlib
import sys
import threading

import numpy as np


def use_refit() -> None:
    import refit

    with refit.serve("127.0.0.1:0") as service:
        with refit.Publisher(service.address, adapter="identity").version(1) as version:
            version.push({"a": np.arange(100_000, dtype=np.float32)})
        for name, tensor in refit.Subscriber(service.address, transport="wire").pull("latest"):
            assert name == "a" and tensor.numpy()[-1] == 99_999
        try:
            refit.Subscriber(service.address).pull("latest", filter="(")
        except refit.RefitError:
            pass  # a status with its details crosses as it should


def use_grpc() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"M": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert channel.unary_unary("/t.T/M")(b"abc", timeout=30) == b"cba"
    server.stop(None).wait()


def use_flight() -> None:
    import pyarrow as pa
    import pyarrow.flight as flight

    table = pa.table({"x": list(range(1000))})

    class Server(flight.FlightServerBase):
        def do_get(self, context, ticket):
            return flight.RecordBatchStream(table)

    server = Server("grpc://127.0.0.1:0")
    threading.Thread(target=server.serve, daemon=True).start()
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        assert client.do_get(flight.Ticket(b"t")).read_all().num_rows == 1000
    server.shutdown()


def use_torch() -> None:
    import torch

    assert torch.ones(3).sum() == 3


def use_protobuf() -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="refit/v1/types.proto", package="refit.v1")
    descriptor_pool.Default().Add(file)  # the name of a file of ours


USES = {"refit": use_refit, "grpc": use_grpc, "pyarrow.flight": use_flight, "torch": use_torch,
        "google.protobuf.descriptor_pool": use_protobuf}  # fmt: skip

order = sys.argv[1:]
for module in order:
    importlib.import_module(module)
for _ in range(2):
    for module in order:
        USES.get(module, lambda: None)()
print("together:", *order)
