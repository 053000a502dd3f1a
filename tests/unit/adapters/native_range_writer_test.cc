#include "common/adapters/native_range_writer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "common/tensor/kernels.h"
#include "tests/support/gather.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;

int64_t Count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, [](int64_t a, int64_t b) { return a * b; });
}

struct Conversion {
  TensorSpec native;
  PlannedOutput output;
};

Conversion Transpose(const Shape& shape, DType from, DType to) {
  Shape swapped = shape;
  std::swap(swapped[swapped.size() - 1], swapped[swapped.size() - 2]);
  return {{"t", from, shape}, {{"t", to, swapped}, Transform::kTransposeLastTwo}};
}

// One element at a time, by its indices.
Bytes Naive(const Conversion& conversion, const Bytes& native) {
  const size_t native_size = ElementSize(conversion.native.dtype);
  const size_t hf_size = ElementSize(conversion.output.hf.dtype);
  const Shape& shape = conversion.native.shape;
  const int64_t count = Count(shape);
  Bytes hf(static_cast<size_t>(count) * hf_size);
  for (int64_t i = 0; i < count; ++i) {
    int64_t place = i;
    if (conversion.output.transform == Transform::kTransposeLastTwo) {
      const int64_t rows = shape[shape.size() - 2];
      const int64_t columns = shape[shape.size() - 1];
      const int64_t within = i % (rows * columns);
      place = i - within + (within % columns) * rows + within / columns;
    }
    ConvertElements(conversion.native.dtype, conversion.output.hf.dtype,
                    native.data() + static_cast<size_t>(i) * native_size,
                    hf.data() + static_cast<size_t>(place) * hf_size, 1);
  }
  return hf;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  Bytes Bits(size_t size) {
    Bytes bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(Between(0, 255));
    return bytes;
  }
  // Runs that cover [0, count), in random order.
  std::vector<std::pair<int64_t, int64_t>> Cuts(int64_t count, int64_t longest) {
    std::vector<std::pair<int64_t, int64_t>> runs;
    for (int64_t at = 0; at < count;) {
      const int64_t size = std::min(count - at, Between(1, longest));
      runs.emplace_back(at, size);
      at += size;
    }
    std::shuffle(runs.begin(), runs.end(), engine_);
    return runs;
  }

 private:
  std::mt19937 engine_;
};

void ExpectCutsMakeTheWhole(const Conversion& conversion, Random& random) {
  SCOPED_TRACE(conversion.native.ToString() + " -> " + conversion.output.hf.ToString());
  const int64_t count = Count(conversion.native.shape);
  const size_t size = ElementSize(conversion.native.dtype);
  const Bytes native = random.Bits(static_cast<size_t>(count) * size);
  const Bytes expected = Naive(conversion, native);
  for (int64_t longest : {int64_t{3}, std::max<int64_t>(1, count / 3), std::max<int64_t>(1, count)}) {
    Bytes hf(expected.size(), std::byte{0xEE});
    for (const auto& [at, elements] : random.Cuts(count, longest)) {
      const size_t begin = static_cast<size_t>(at) * size;
      // A copy of its own, so that reading beyond it is found out.
      const Bytes piece(native.begin() + static_cast<std::ptrdiff_t>(begin),
                        native.begin() + static_cast<std::ptrdiff_t>(begin + static_cast<size_t>(elements) * size));
      WriteNativeRange(TensorPart::Whole(conversion.native), conversion.output, begin, piece, hf.data());
    }
    ASSERT_EQ(hf, expected);
  }
}

Shape RandomShape(Random& random) {
  Shape shape;
  const int64_t leading = random.Between(0, 3);
  for (int64_t i = 0; i < leading; ++i) shape.push_back(random.Between(1, 4));
  shape.push_back(random.Between(1, 37));
  shape.push_back(random.Between(1, 37));
  return shape;
}

class EveryDType : public ::testing::TestWithParam<DType> {};

TEST_P(EveryDType, RandomCutsOfATransposeMakeTheWhole) {
  Random random(static_cast<uint32_t>(GetParam()));
  for (int i = 0; i < 12; ++i) ExpectCutsMakeTheWhole(Transpose(RandomShape(random), GetParam(), GetParam()), random);
}

TEST_P(EveryDType, RandomCutsOfACastMakeTheWhole) {
  Random random(100 + static_cast<uint32_t>(GetParam()));
  for (DType to : kAllDTypes) {
    if (!CanConvert(GetParam(), to)) continue;
    for (int i = 0; i < 4; ++i) ExpectCutsMakeTheWhole(Transpose(RandomShape(random), GetParam(), to), random);
    const Conversion pass = {{"t", GetParam(), {7, 5}}, {{"t", to, {7, 5}}, Transform::kPass}};
    ExpectCutsMakeTheWhole(pass, random);
  }
}

TEST_P(EveryDType, ScalarsPass) {
  Random random(1);
  ExpectCutsMakeTheWhole({{"t", GetParam(), {}}, {{"t", GetParam(), {}}, Transform::kPass}}, random);
}

INSTANTIATE_TEST_SUITE_P(DTypes, EveryDType, ::testing::ValuesIn(kAllDTypes),
                         [](const auto& test) { return std::string(Name(test.param)); });

TEST(NativeRangeWriter, VectorsAsMatrices) {
  Random random(5);
  for (const Shape& shape : {Shape{3, 1, 9}, Shape{3, 9, 1}, Shape{1, 1}, Shape{2, 2, 1, 1}}) {
    ExpectCutsMakeTheWhole(Transpose(shape, DType::kF32, DType::kBF16), random);
  }
}

TEST(NativeRangeWriter, EmptyTensorsTakeEmptyRanges) {
  for (const Shape& shape : {Shape{0, 3, 2}, Shape{2, 0, 3}, Shape{2, 3, 0}, Shape{0, 0}}) {
    const Conversion conversion = Transpose(shape, DType::kF32, DType::kBF16);
    WriteNativeRange(TensorPart::Whole(conversion.native), conversion.output, 0, {}, nullptr);
  }
}

TEST(NativeRangeWriter, AnEmptyRangeWritesNothing) {
  const Conversion conversion = Transpose({2, 3}, DType::kF32, DType::kF32);
  Bytes hf(24, std::byte{7});
  WriteNativeRange(TensorPart::Whole(conversion.native), conversion.output, 8, {}, hf.data());
  EXPECT_EQ(hf, Bytes(24, std::byte{7}));
}

// Boxes that tile a shape: cut at random along every dimension.
std::vector<Box> RandomTiling(const Shape& shape, Random& random) {
  std::vector<Box> boxes = {WholeBox(shape)};
  for (size_t d = 0; d < shape.size(); ++d) {
    const auto parts = static_cast<uint64_t>(random.Between(1, 4));
    std::vector<Box> cut;
    for (const Box& box : boxes) {
      for (uint64_t part = 0; part < parts; ++part) cut.push_back(Cut(box, d, Split::kCeil, part, parts));
    }
    boxes = std::move(cut);
  }
  return boxes;
}

void ExpectShardsMakeTheWhole(const Conversion& conversion, Random& random) {
  SCOPED_TRACE(conversion.native.ToString() + " -> " + conversion.output.hf.ToString());
  const auto count = static_cast<size_t>(Count(conversion.native.shape));
  const size_t size = ElementSize(conversion.native.dtype);
  const size_t hf_size = ElementSize(conversion.output.hf.dtype);
  const Bytes native = random.Bits(count * size);
  const Bytes expected = Naive(conversion, native);
  Bytes hf(expected.size(), std::byte{0xEE});
  std::vector<int> times_written(count, 0);
  for (const Box& box : RandomTiling(conversion.native.shape, random)) {
    const TensorPart shard{conversion.native, box};
    const Bytes bytes = Gather(shard, native);
    for (const auto& [at, elements] : random.Cuts(ElementCount(box), std::max<int64_t>(1, ElementCount(box) / 2))) {
      const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at * size);
      const Bytes piece(begin, begin + static_cast<std::ptrdiff_t>(elements * size));
      WriteNativeRange(shard, conversion.output, at * size, piece, hf.data(), [&](const StridedRuns& runs) {
        for (int64_t run = 0; run < runs.count; ++run) {
          for (int64_t i = 0; i < runs.length; ++i) {
            const int64_t element = runs.first + run * runs.stride + i;
            ++times_written[element];
            const auto offset = static_cast<size_t>(element) * hf_size;
            ASSERT_EQ(std::memcmp(hf.data() + offset, expected.data() + offset, hf_size), 0) << shard.ToString();
          }
        }
      });
    }
  }
  EXPECT_EQ(hf, expected);
  EXPECT_EQ(times_written, std::vector<int>(count, 1));
}

TEST(NativeRangeWriter, RandomShardsOfATransposeMakeTheWhole) {
  Random random(21);
  for (int i = 0; i < 60; ++i) {
    ExpectShardsMakeTheWhole(Transpose(RandomShape(random), DType::kF32, DType::kBF16), random);
    ExpectShardsMakeTheWhole(Transpose(RandomShape(random), DType::kBF16, DType::kBF16), random);
  }
}

TEST(NativeRangeWriter, RandomShardsOfAPassMakeTheWhole) {
  Random random(22);
  for (int i = 0; i < 60; ++i) {
    const Shape shape = RandomShape(random);
    ExpectShardsMakeTheWhole({{"t", DType::kF32, shape}, {{"t", DType::kF16, shape}, Transform::kPass}}, random);
  }
}

// Address space without memory behind it, until it is written.
class SparseMemory {
 public:
  explicit SparseMemory(size_t size)
      : size_(size),
        data_(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~SparseMemory() {
    if (valid()) munmap(data_, size_);
  }
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;
  bool valid() const { return data_ != MAP_FAILED; }
  std::byte* data() { return static_cast<std::byte*>(data_); }

 private:
  size_t size_;
  void* data_;
};

TEST(NativeRangeWriter, OffsetsBeyondFourGigabytes) {
  // The 26B model's largest tensor in F32, and one whose single matrix has more than 2^31 elements.
  const Conversion stacked = Transpose({1024, 2816, 1408}, DType::kF32, DType::kF32);
  const Conversion wide = Transpose({3, (1 << 16) + 1, 1 << 15}, DType::kU8, DType::kU8);
  for (const Conversion& conversion : {stacked, wide}) {
    const Shape& shape = conversion.native.shape;
    const uint64_t size = ElementSize(conversion.native.dtype);
    SparseMemory hf(conversion.output.hf.ByteSize());
    ASSERT_TRUE(hf.valid());
    const int64_t rows = shape[1];
    const int64_t columns = shape[2];
    const int64_t matrix = shape[0] - 1;
    const int64_t row = rows - 2;
    const int64_t column = columns - 3;
    // The end of a row and the beginning of the next: two runs of columns.
    Random random(9);
    const Bytes piece = random.Bits(5 * size);
    const uint64_t offset = static_cast<uint64_t>((matrix * rows + row) * columns + column) * size;
    ASSERT_GT(offset, uint64_t{1} << 32);
    WriteNativeRange(TensorPart::Whole(conversion.native), conversion.output, offset, piece, hf.data());
    for (int64_t i = 0; i < 5; ++i) {
      const int64_t r = row + (column + i) / columns;
      const int64_t c = (column + i) % columns;
      const std::byte* place = hf.data() + static_cast<uint64_t>((matrix * columns + c) * rows + r) * size;
      EXPECT_EQ(std::memcmp(place, piece.data() + static_cast<uint64_t>(i) * size, size), 0) << i;
    }
  }
}

}  // namespace
}  // namespace refit
