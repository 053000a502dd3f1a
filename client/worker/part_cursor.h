// Goes through the tensors of a pull, some bytes at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "refit/box.h"

namespace refit {

// A run of a part's bytes that is a box, too.
struct PartSlice {
  size_t index = 0;  // of the part
  TensorPart part;
  uint64_t begin = 0;  // where in the part
};

// The parts must outlive it.
class PartCursor {
 public:
  explicit PartCursor(const std::vector<TensorPart>& parts) : parts_(parts) {}

  // The next slices, of at least so many bytes if there are as many. Of each part there is one at most.
  std::vector<PartSlice> Take(uint64_t bytes);
  uint64_t left_bytes() const;

 private:
  const std::vector<TensorPart>& parts_;
  size_t next_ = 0;  // part
  int64_t row_ = 0;  // of its outermost dimension that has several
};

}  // namespace refit
