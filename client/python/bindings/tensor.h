// Tensors for Python: views of memory that C++ owns, and memory that Python lends.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/buffer.h"

namespace refit::python {

// A tensor, or a part of one. Its memory lives as long as anything in Python refers to it.
struct Tensor {
  TensorPart part;
  absl::Span<std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// Memory that Python lends to a call: [address, address + size), kept alive by `owner`. A MemoryProbe checks it before
// it is read, because it may be anything, such as a mapping of a file that is truncated meanwhile.
struct Lent {
  uintptr_t address = 0;
  uint64_t size = 0;
  pybind11::object owner;

  absl::Span<const std::byte> bytes() const { return {reinterpret_cast<const std::byte*>(address), size}; }
};

std::vector<int64_t> ToVector(absl::Span<const int64_t> shape);

void BindTensor(pybind11::module_& module);

}  // namespace refit::python
