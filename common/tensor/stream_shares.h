// Divides tensors among several connections that move them at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "refit/box.h"

namespace refit {

// A run of a part's bytes, row-major, that one connection moves.
struct StreamRun {
  size_t stream = 0;
  Box box;  // of the tensor
  uint64_t begin = 0;
  uint64_t end = 0;
};

// The runs of each part, in the order of its bytes; none of an empty part. Each connection gets about as many bytes,
// and all of them go through the tensors in step: a large part is divided along its outermost dimension, so that each
// run is a box; a small one belongs to the connection that has the least so far. `whole`: none is divided.
std::vector<std::vector<StreamRun>> DivideAmong(size_t streams, absl::Span<const TensorPart> parts, bool whole = false);

// How many connections so many bytes are worth, at most `streams`; at least 1.
size_t UsefulStreams(uint64_t bytes, size_t streams);

}  // namespace refit
