// Boxes and shapes against models that count every element, or count in 128 bits.
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "refit/box.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/fuzz_input.h"

namespace refit {
namespace {

using Wide = __int128;
constexpr Wide kMax = std::numeric_limits<int64_t>::max();

// Any number, and those near the edges more often than others.
int64_t AnyInteger(FuzzInput& input) {
  switch (input.Below(4)) {
    case 0:
      return static_cast<int8_t>(input.Byte());
    case 1:
      return std::numeric_limits<int64_t>::max() - input.Byte();
    case 2:
      return int64_t{1} << input.Below(63);
    default:
      return input.Integer<int64_t>();
  }
}

Shape AnyShape(FuzzInput& input) {
  Shape shape(input.Below(kMaxRank + 3));
  for (int64_t& dimension : shape) dimension = AnyInteger(input);
  return shape;
}

// Whether the shape is acceptable, and its elements.
bool CountElements(const Shape& shape, Wide& count) {
  if (shape.size() > kMaxRank) return false;
  Wide product = 1;  // without zeros
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return false;
    if (dimension == 0) {
      empty = true;
      continue;
    }
    product *= dimension;
    if (product > kMax) return false;
  }
  count = empty ? 0 : product;
  return true;
}

void CheckShapes(FuzzInput& input) {
  const Shape shape = AnyShape(input);
  Wide count = 0;
  const bool good = CountElements(shape, count);
  const absl::StatusOr<int64_t> elements = ElementCount(shape);
  FUZZ_CHECK(elements.ok() == good) << ToString(shape) << elements.status().ToString();
  if (good) {
    FUZZ_CHECK(*elements == static_cast<int64_t>(count)) << ToString(shape) << *elements;
  }
  for (const DType dtype : {DType::kU8, DType::kBF16, DType::kF32, DType::kF64}) {
    const absl::StatusOr<uint64_t> bytes = ByteCount(dtype, shape);
    if (!good) {
      FUZZ_CHECK(!bytes.ok()) << ToString(shape);
    }
    if (bytes.ok()) {
      FUZZ_CHECK(*bytes == static_cast<uint64_t>(count) * ElementSize(dtype)) << ToString(shape);
    }
    if (good && count * 8 <= kMax) {
      // With a zero, the product of the others may still be too large.
      Wide others = 1;
      for (const int64_t dimension : shape) others *= dimension == 0 || others > kMax ? 1 : dimension;
      if (others * 8 <= kMax) {
        FUZZ_CHECK(bytes.ok()) << ToString(shape) << bytes.status().ToString();
      }
    }
  }
}

void CheckValidation(FuzzInput& input) {
  Shape shape(input.Below(5));
  for (int64_t& dimension : shape) {
    const int64_t any = AnyInteger(input);
    dimension = any < 0 ? ~any : any;
  }
  Wide count = 0;
  if (!CountElements(shape, count)) return;
  Box box{Shape(input.Below(5)), Shape(input.Below(5))};
  for (int64_t& offset : box.offsets) offset = AnyInteger(input);
  for (int64_t& size : box.sizes) size = AnyInteger(input);

  bool good = box.offsets.size() == shape.size() && box.sizes.size() == shape.size();
  for (size_t d = 0; good && d < shape.size(); ++d) {
    good = box.offsets[d] >= 0 && box.sizes[d] >= 0 && Wide{box.offsets[d]} + box.sizes[d] <= shape[d];
  }
  FUZZ_CHECK(Validate(box, shape).ok() == good) << ToString(shape);
  if (!good) return;
  (void)ToString(box);
  FUZZ_CHECK(ElementCount(box) <= static_cast<int64_t>(count));
  const BoxRuns runs(shape, box);
  FUZZ_CHECK(runs.offset() >= 0);
  if (shape.empty()) return;
  // Cuts of any size stay within the box.
  const size_t dimension = input.Below(shape.size());
  const uint64_t parts = std::max<uint64_t>(1, input.Integer<uint64_t>());
  const uint64_t part = input.Integer<uint64_t>() % parts;
  for (const Split split : {Split::kBalanced, Split::kCeil}) {
    const Box cut = Cut(box, dimension, split, part, parts);
    FUZZ_CHECK(Validate(cut, shape).ok()) << ToString(cut) << ToString(shape);
    FUZZ_CHECK(cut.offsets[dimension] >= box.offsets[dimension]) << ToString(cut);
    FUZZ_CHECK(cut.offsets[dimension] + cut.sizes[dimension] <= box.offsets[dimension] + box.sizes[dimension])
        << ToString(cut);
  }
}

// Below here shapes are so small that every element can be looked at.

Shape SmallShape(FuzzInput& input) {
  Shape shape(input.Below(5));
  for (int64_t& dimension : shape) dimension = static_cast<int64_t>(input.Below(6));
  return shape;
}

Box SmallBox(FuzzInput& input, const Shape& shape) {
  Box box = WholeBox(shape);
  for (size_t d = 0; d < shape.size(); ++d) {
    box.offsets[d] = static_cast<int64_t>(input.Below(static_cast<uint64_t>(shape[d]) + 1));
    box.sizes[d] = static_cast<int64_t>(input.Below(static_cast<uint64_t>(shape[d] - box.offsets[d]) + 1));
  }
  return box;
}

// The places in the tensor of the box's elements, in the box's order.
std::vector<int64_t> Places(const Shape& shape, const Box& box) {
  std::vector<int64_t> places;
  for (int64_t i = 0; i < ElementCount(box); ++i) {
    int64_t rest = i;
    int64_t place = 0;
    int64_t stride = 1;
    for (size_t d = shape.size(); d-- > 0;) {
      place += (box.offsets[d] + rest % box.sizes[d]) * stride;
      rest /= box.sizes[d];
      stride *= shape[d];
    }
    places.push_back(place);
  }
  return places;
}

std::vector<int> Coverage(const Shape& shape, const std::vector<Box>& boxes) {
  std::vector<int> covered(static_cast<size_t>(ElementCount(WholeBox(shape))));
  for (const Box& box : boxes) {
    for (const int64_t place : Places(shape, box)) ++covered[static_cast<size_t>(place)];
  }
  return covered;
}

void CheckIntersection(const Shape& shape, const Box& a, const Box& b) {
  const std::vector<int64_t> of_b = Places(shape, b);
  const std::set<int64_t> in_b(of_b.begin(), of_b.end());
  std::vector<int64_t> both;
  for (const int64_t place : Places(shape, a)) {
    if (in_b.count(place) > 0) both.push_back(place);
  }
  const std::optional<Box> common = Intersection(a, b);
  FUZZ_CHECK(common.has_value() == !both.empty()) << ToString(a) << ToString(b);
  if (common.has_value()) {
    FUZZ_CHECK(Places(shape, *common) == both) << ToString(a) << ToString(b);
  }
}

void CheckTilingOf(const Shape& shape, const std::vector<Box>& boxes) {
  const std::vector<int> covered = Coverage(shape, boxes);
  bool tiles = true;
  for (const int times : covered) tiles = tiles && times == 1;
  const std::optional<TilingError> error = CheckTiling(shape, boxes);
  FUZZ_CHECK(error.has_value() == !tiles) << ToString(shape) << boxes.size();
  if (!error.has_value()) return;
  FUZZ_CHECK(error->overlap.has_value() != error->missing.has_value());
  if (error->overlap.has_value()) {
    const auto [first, second] = *error->overlap;
    FUZZ_CHECK(first < second && second < boxes.size());
    FUZZ_CHECK(Intersection(boxes[first], boxes[second]).has_value());
  } else {
    FUZZ_CHECK(Validate(*error->missing, shape).ok());
    const std::vector<int64_t> missing = Places(shape, *error->missing);
    FUZZ_CHECK(!missing.empty());
    for (const int64_t place : missing) FUZZ_CHECK(covered[static_cast<size_t>(place)] == 0) << place;
  }
}

void CheckCuts(const Shape& shape, const Box& box, size_t dimension, uint64_t parts) {
  for (const Split split : {Split::kBalanced, Split::kCeil}) {
    int64_t next = box.offsets[dimension];
    for (uint64_t part = 0; part < parts; ++part) {
      const Box cut = Cut(box, dimension, split, part, parts);
      FUZZ_CHECK(Validate(cut, shape).ok());
      FUZZ_CHECK(cut.offsets[dimension] == next) << ToString(cut);
      next += cut.sizes[dimension];
      const auto size = static_cast<uint64_t>(box.sizes[dimension]);
      const uint64_t least = size / parts;
      const uint64_t most = (size + parts - 1) / parts;
      const auto got = static_cast<uint64_t>(cut.sizes[dimension]);
      FUZZ_CHECK(got <= most) << ToString(cut);
      if (split == Split::kBalanced) {
        FUZZ_CHECK(got == least + (part < size % parts ? 1 : 0)) << ToString(cut);
      }
      // torch.chunk: full parts, then what is left, then nothing.
      if (split == Split::kCeil) {
        FUZZ_CHECK(got == std::min(most, size - std::min(size, part * most))) << ToString(cut);
      }
    }
    FUZZ_CHECK(next == box.offsets[dimension] + box.sizes[dimension]);
  }
}

void CheckRuns(const Shape& shape, const Box& box, FuzzInput& input) {
  const std::vector<int64_t> expected = Places(shape, box);
  if (expected.empty()) return;
  const BoxRuns runs(shape, box);
  FUZZ_CHECK(runs.offset() == expected[0]);
  const auto first = static_cast<int64_t>(input.Below(expected.size()));
  const auto count = static_cast<int64_t>(input.Below(expected.size() - static_cast<size_t>(first) + 1));
  std::vector<int64_t> got;
  runs.ForEach(first, count, [&](int64_t place, int64_t length) {
    FUZZ_CHECK(length > 0);
    for (int64_t i = 0; i < length; ++i) got.push_back(place + i);
  });
  const std::vector<int64_t> wanted(expected.begin() + first, expected.begin() + first + count);
  FUZZ_CHECK(got == wanted) << ToString(shape) << ToString(box) << first << count;
}

void CheckSmall(FuzzInput& input) {
  const Shape shape = SmallShape(input);
  std::vector<Box> boxes(input.Below(6) + 1);
  for (Box& box : boxes) box = SmallBox(input, shape);
  CheckIntersection(shape, boxes.front(), boxes.back());
  for (const Box& box : boxes) CheckRuns(shape, box, input);
  if (!shape.empty()) CheckCuts(shape, boxes[0], input.Below(shape.size()), input.Below(9) + 1);

  // Real tilings are rare by chance: begin with the whole, and cut what is there again and again.
  std::vector<Box> tiles = {WholeBox(shape)};
  for (uint64_t cuts = shape.empty() ? 0 : input.Below(5); cuts > 0; --cuts) {
    const size_t chosen = input.Below(tiles.size());
    const size_t dimension = input.Below(shape.size());
    const Box whole = tiles[chosen];
    tiles.erase(tiles.begin() + static_cast<std::ptrdiff_t>(chosen));
    for (uint64_t part = 0; part < 3; ++part) tiles.push_back(Cut(whole, dimension, Split::kCeil, part, 3));
  }
  if (input.Below(3) == 0) tiles.push_back(boxes[0]);
  if (input.Below(3) == 0) tiles.erase(tiles.begin());
  for (std::vector<Box>* candidates : {&boxes, &tiles}) {
    std::vector<Box> some;
    for (const Box& box : *candidates) {
      if (ElementCount(box) > 0) some.push_back(box);
    }
    CheckTilingOf(shape, some);
  }
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refit::FuzzInput input(data, size);
  switch (input.Below(3)) {
    case 0:
      refit::CheckShapes(input);
      break;
    case 1:
      refit::CheckValidation(input);
      break;
    default:
      refit::CheckSmall(input);
  }
  return 0;
}
