#include "client/worker/part_cursor.h"

#include <algorithm>

namespace refit {

std::vector<PartSlice> PartCursor::Take(uint64_t bytes) {
  std::vector<PartSlice> slices;
  for (uint64_t taken = 0; next_ < parts_.size() && taken < bytes;) {
    const TensorPart& part = parts_[next_];
    const Box& box = part.box;
    const size_t rows_at =
        std::find_if(box.sizes.begin(), box.sizes.end(), [](int64_t n) { return n > 1; }) - box.sizes.begin();
    PartSlice slice{next_, part, 0};
    if (rows_at == box.sizes.size() || part.ByteSize() == 0) {
      taken += part.ByteSize();
      ++next_;
    } else {
      const int64_t rows = box.sizes[rows_at];
      const uint64_t row_bytes = part.ByteSize() / rows;
      const auto wanted = static_cast<int64_t>(std::min<uint64_t>((bytes - taken + row_bytes - 1) / row_bytes, rows));
      const int64_t count = std::min(wanted, rows - row_);
      slice.part.box.offsets[rows_at] += row_;
      slice.part.box.sizes[rows_at] = count;
      slice.begin = row_ * row_bytes;
      taken += count * row_bytes;
      row_ += count;
      if (row_ == rows) {
        ++next_;
        row_ = 0;
      }
    }
    slices.push_back(std::move(slice));
  }
  return slices;
}

uint64_t PartCursor::left_bytes() const {
  uint64_t bytes = 0;
  for (size_t i = next_; i < parts_.size(); ++i) bytes += parts_[i].ByteSize();
  if (row_ == 0) return bytes;
  const Shape& sizes = parts_[next_].box.sizes;
  const int64_t rows = *std::find_if(sizes.begin(), sizes.end(), [](int64_t n) { return n > 1; });
  return bytes - parts_[next_].ByteSize() / rows * row_;
}

}  // namespace refit
