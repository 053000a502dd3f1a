"""A small model whose versions differ in few values."""

import array

import refit

ELEMENTS = 200_000


class Model:
    """ "weight" and "bias" change, "frozen" does not. Needs neither torch nor NumPy."""

    def __init__(self, service, **options):
        self.address = service.address
        self.tensors = {
            "weight": array.array("H", (value * 40503 % 65536 for value in range(ELEMENTS))),
            "frozen": array.array("f", range(50_000)),
            "bias": array.array("H", range(1000)),
        }
        self.number = 0
        self._options = options

    def publish(self, number=None, **options):
        """The values as they are."""
        self.number = self.number + 1 if number is None else number
        with refit.Publisher(self.address, adapter="identity", **self._options) as publisher:
            with publisher.version(self.number, rank=0, world=1, **options) as version:
                version.push(self.tensors)

    def step(self, nth=100):
        """Every nth value moves by one; then the next version."""
        for name in ("weight", "bias"):
            values = self.tensors[name]
            for at in range(0, len(values), nth):
                values[at] = (values[at] + 1) % 65536
        self.publish()

    @property
    def nbytes(self):
        return sum(len(values) * values.itemsize for values in self.tensors.values())

    def same(self, version):
        """Bit for bit, all of it."""
        got = {tensor.name: bytes(memoryview(tensor.memory)) for tensor in version.tensors}
        return got == {name: values.tobytes() for name, values in self.tensors.items()}
