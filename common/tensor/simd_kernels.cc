// Kernels that cast and transpose, compiled for several instruction sets. The processor decides at run time which is
// used.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "common/tensor/float_bits.h"
#include "common/tensor/kernel_choice.h"
#include "common/tensor/kernels.h"
#include "common/tensor/unaligned.h"

// Vectors whose length is known only at run time cannot be stored in arrays, which tiles need.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_RVV | HWY_SSSE3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/tensor/simd_kernels.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace refit {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// How the castable types are stored, and the arithmetic type used for converting them.
template <typename T>
struct Plain {
  using Stored = T;
  using Value = T;
  static Value Decode(Stored stored) { return stored; }
  static Stored Encode(Value value) { return value; }
};
using F64 = Plain<double>;
using F32 = Plain<float>;
struct F16 {
  using Stored = uint16_t;
  using Value = float;
  static Value Decode(Stored stored) { return DecodeF16(stored); }
  static Stored Encode(Value value) { return EncodeF16(value); }
};
struct BF16 {
  using Stored = uint16_t;
  using Value = float;
  static Value Decode(Stored stored) { return DecodeBF16(stored); }
  static Stored Encode(Value value) { return EncodeBF16(value); }
};

constexpr int64_t kLine = 64;  // bytes of a cache line

struct Extent {
  int64_t rows;
  int64_t cols;
};

// Strides count bytes.
using Converter = void (*)(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride, Extent extent);

// The compiler vectorises this with the widest vectors of the instruction set.
template <typename From, typename To>
void ConvertRun(const std::byte* __restrict src, std::byte* __restrict dst, int64_t count) {
  using Source = typename From::Stored;
  using Target = typename To::Stored;
  for (int64_t i = 0; i < count; ++i) {
    const auto value = From::Decode(Load<Source>(src + i * sizeof(Source)));
    Store<Target>(dst + i * sizeof(Target), To::Encode(static_cast<typename To::Value>(value)));
  }
}

// One call for all rows, and a length that the compiler knows: rows of one line are short.
template <typename From, typename To>
void ConvertRows(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride, Extent extent) {
  constexpr int64_t kLineOfElements = kLine / sizeof(typename To::Stored);
  if (extent.cols == kLineOfElements) {
    for (int64_t r = 0; r < extent.rows; ++r)
      ConvertRun<From, To>(src + r * src_stride, dst + r * dst_stride, kLineOfElements);
    return;
  }
  for (int64_t r = 0; r < extent.rows; ++r)
    ConvertRun<From, To>(src + r * src_stride, dst + r * dst_stride, extent.cols);
}

template <typename From>
Converter ConverterFrom(DType to) {
  switch (to) {
    case DType::kF64:
      return ConvertRows<From, F64>;
    case DType::kF32:
      return ConvertRows<From, F32>;
    case DType::kF16:
      return ConvertRows<From, F16>;
    default:
      return ConvertRows<From, BF16>;
  }
}

// For two different castable types.
Converter ConverterOf(DType from, DType to) {
  switch (from) {
    case DType::kF64:
      return ConverterFrom<F64>(to);
    case DType::kF32:
      return ConverterFrom<F32>(to);
    case DType::kF16:
      return ConverterFrom<F16>(to);
    default:
      return ConverterFrom<BF16>(to);
  }
}

void Convert(DType from, DType to, const std::byte* src, std::byte* dst, int64_t count) {
  ConverterOf(from, to)(src, 0, dst, 0, {1, count});
}

template <size_t kSize>
using Unsigned = hwy::UnsignedFromSize<kSize>;

#if HWY_TARGET != HWY_SCALAR
// A tile has as many rows as a 16-byte block has elements; each row is one vector. So it consists of square tiles side
// by side.
template <size_t kSize>
struct Tile {
  using Tag = hn::ScalableTag<Unsigned<kSize>>;
  using Vector = hn::Vec<Tag>;
  static constexpr int64_t kRows = 16 / kSize;
  static constexpr int64_t kCols = HWY_MAX_BYTES / kSize;

  // Each pass rotates the index bits of the square tiles by one. After log2(rows) passes each one is transposed.
  static void Transpose(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride) {
    const Tag tag;
    Vector rows[kRows];
    Vector next[kRows];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kRows; ++i) rows[i] = LoadRow(src + i * src_stride);
#pragma GCC unroll 4
    for (int64_t pass = 1; pass < kRows; pass *= 2) {
#pragma GCC unroll 16
      for (int64_t i = 0; i < kRows / 2; ++i) {
        next[2 * i] = hn::InterleaveLower(tag, rows[i], rows[i + kRows / 2]);
        next[2 * i + 1] = hn::InterleaveUpper(tag, rows[i], rows[i + kRows / 2]);
      }
#pragma GCC unroll 16
      for (int64_t i = 0; i < kRows; ++i) rows[i] = next[i];
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kRows; ++i) StoreBlocks(rows[i], dst + i * dst_stride, kRows * dst_stride);
  }

 private:
  static Vector LoadRow(const std::byte* src) {
    return hn::LoadU(Tag(), reinterpret_cast<const Unsigned<kSize>*>(src));
  }

  // Writes block b of the vector to dst + b * stride.
  template <typename V>
  static void StoreBlocks(V vector, std::byte* dst, int64_t stride) {
    const hn::DFromV<V> tag;
    constexpr size_t kBlocks = hn::MaxLanes(hn::DFromV<V>()) / kRows;
    if constexpr (kBlocks > 1) {
      const hn::Half<decltype(tag)> half;
      StoreBlocks(hn::LowerHalf(half, vector), dst, stride);
      StoreBlocks(hn::UpperHalf(half, vector), dst + kBlocks / 2 * stride, stride);
    } else {
      hn::StoreU(vector, tag, reinterpret_cast<Unsigned<kSize>*>(dst));
    }
  }
};

#endif  // HWY_TARGET != HWY_SCALAR

template <size_t kSize>
void TransposeScalar(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride, Extent extent) {
  using Element = Unsigned<kSize>;
  for (int64_t c = 0; c < extent.cols; ++c) {
    for (int64_t r = 0; r < extent.rows; ++r) {
      Store(dst + c * dst_stride + r * kSize, Load<Element>(src + r * src_stride + c * kSize));
    }
  }
}

// Prefetches the rows after the current ones, in the order of memory, which is the fastest order, and in small steps,
// because fetching all at once would stall.
class Upcoming {
 public:
  Upcoming(const std::byte* src, int64_t stride, int64_t rows, int64_t row_bytes)
      : row_(src), stride_(stride), rows_(rows), row_bytes_(row_bytes) {}

  void Fetch(int64_t lines) {
    for (; lines > 0 && rows_ > 0; --lines) {
      __builtin_prefetch(row_ + at_, 0, 2);
      at_ += kLine;
      if (at_ < row_bytes_) continue;
      at_ = 0;
      row_ += stride_;
      --rows_;
    }
  }

 private:
  const std::byte* row_;
  int64_t stride_;
  int64_t rows_;
  int64_t row_bytes_;
  int64_t at_ = 0;
};

// Transposes as many whole tiles as fit, then the rest.
template <size_t kSize>
void TransposeBlock(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride, Extent extent) {
  int64_t whole_rows = 0;
  int64_t whole_cols = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t kRows = Tile<kSize>::kRows;
  constexpr int64_t kCols = Tile<kSize>::kCols;
  whole_rows = extent.rows - extent.rows % kRows;
  whole_cols = extent.cols - extent.cols % kCols;
  for (int64_t c = 0; c < whole_cols; c += kCols) {
    for (int64_t r = 0; r < whole_rows; r += kRows) {
      Tile<kSize>::Transpose(src + r * src_stride + c * kSize, src_stride, dst + c * dst_stride + r * kSize,
                             dst_stride);
    }
  }
#endif
  TransposeScalar<kSize>(src + whole_cols * kSize, src_stride, dst + whole_cols * dst_stride, dst_stride,
                         {whole_rows, extent.cols - whole_cols});
  TransposeScalar<kSize>(src + whole_rows * src_stride, src_stride, dst + whole_rows * kSize, dst_stride,
                         {extent.rows - whole_rows, extent.cols});
}

// Copies a cache line past the cache. The destination is aligned to a line.
void StreamLine(const std::byte* src, std::byte* dst) {
  const hn::ScalableTag<uint8_t> tag;
  for (int64_t at = 0; at < kLine; at += static_cast<int64_t>(hn::Lanes(tag))) {
    hn::Stream(hn::LoadU(tag, reinterpret_cast<const uint8_t*>(src + at)), tag, reinterpret_cast<uint8_t*>(dst + at));
  }
}

void Stream(const std::byte* src, std::byte* dst, size_t size) {
  const size_t to_line = (kLine - reinterpret_cast<uintptr_t>(dst) % kLine) % kLine;
  size_t at = std::min(size, to_line);
  std::memcpy(dst, src, at);
  for (; size - at >= kLine; at += kLine) StreamLine(src + at, dst + at);
  std::memcpy(dst + at, src + at, size - at);
  hwy::FlushStream();
}

// One transposition. It processes panels of rows, each of which becomes one cache line of the destination's rows, or as
// many lines as the way says; and each panel in blocks of a line of elements. With a cast, a block's rows are converted
// first. With streaming, its lines are collected first, because only whole lines may be written past the cache.
template <size_t kSize>
class Transposer {
 public:
  Transposer(Converter convert, int64_t src_size, int64_t src_stride, int64_t dst_stride, int64_t cols,
             const TransposeWay& way)
      : convert_(convert),
        src_size_(src_size),
        src_stride_(src_stride),
        dst_stride_(dst_stride),
        cols_(cols),
        way_(way) {}

  void Run(const std::byte* src, std::byte* dst, int64_t rows) {
    const bool stream = way_.past_cache && dst_stride_ * cols_ >= static_cast<int64_t>(kPastCacheBytes) &&
                        dst_stride_ % kLine == 0 && reinterpret_cast<uintptr_t>(dst) % kSize == 0;
    while (rows > 0) {
      // The first panel may be smaller, so that the next one begins with a whole line of the destination.
      const auto misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(dst) % kLine / kSize);
      int64_t panel = std::min(rows, kEdge - misplaced);
      if (panel == kEdge) panel = std::min(rows / kEdge, static_cast<int64_t>(way_.lines)) * kEdge;
      rows -= panel;
      Upcoming upcoming(src + panel * src_stride_, src_stride_, std::min(rows, panel), cols_ * src_size_);
      Panel(src, dst, panel, stream && panel % kEdge == 0, upcoming);
      src += panel * src_stride_;
      dst += panel * static_cast<int64_t>(kSize);
    }
    if (stream) hwy::FlushStream();
  }

 private:
  static constexpr int64_t kMaxLines = 2;          // of a way
  static constexpr int64_t kEdge = kLine / kSize;  // of a block: one line of elements in both directions

  void Panel(const std::byte* src, std::byte* dst, int64_t rows, bool stream, Upcoming& upcoming) {
    for (int64_t c = 0; c < cols_; c += kEdge) {
      upcoming.Fetch(rows * src_size_ / static_cast<int64_t>(kSize));
      const int64_t cols = std::min(kEdge, cols_ - c);
      for (int64_t r = 0; r < rows; r += kEdge) {
        Block(src + r * src_stride_ + c * src_size_, dst + c * dst_stride_ + r * static_cast<int64_t>(kSize),
              {std::min(kEdge, rows - r), cols}, stream ? collected_ + r / kEdge * kLine : nullptr);
      }
      if (stream) StreamRows(dst + c * dst_stride_, cols, rows / kEdge);
    }
  }

  // To `collected`, unless that is null, or else to `dst`.
  void Block(const std::byte* src, std::byte* dst, Extent extent, std::byte* collected) {
    int64_t stride = src_stride_;
    if (convert_ != nullptr) {
      convert_(src, src_stride_, converted_, kLine, extent);
      src = converted_;
      stride = kLine;
    }
    if (collected == nullptr) return TransposeBlock<kSize>(src, stride, dst, dst_stride_, extent);
    TransposeBlock<kSize>(src, stride, collected, kMaxLines * kLine, extent);
  }

  void StreamRows(std::byte* dst, int64_t rows, int64_t lines) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t line = 0; line < lines; ++line) {
        StreamLine(collected_ + (r * kMaxLines + line) * kLine, dst + r * dst_stride_ + line * kLine);
      }
    }
  }

  const Converter convert_;  // null: the types are the same
  const int64_t src_size_;
  const int64_t src_stride_;
  const int64_t dst_stride_;
  const int64_t cols_;
  const TransposeWay way_;
  alignas(kLine) std::byte converted_[kEdge * kLine];
  alignas(kLine) std::byte collected_[kEdge * kMaxLines * kLine];
};

template <size_t kSize>
void TransposeTo(Converter convert, int64_t src_size, const std::byte* src, int64_t src_stride, std::byte* dst,
                 int64_t dst_stride, Extent extent, const TransposeWay& way) {
  Transposer<kSize>(convert, src_size, src_stride, dst_stride, extent.cols, way).Run(src, dst, extent.rows);
}

void Transpose(DType from, DType to, const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride,
               int64_t rows, int64_t cols, const TransposeWay& way) {
  const Converter convert = from == to ? nullptr : ConverterOf(from, to);
  const auto src_size = static_cast<int64_t>(ElementSize(from));
  const auto dst_size = static_cast<int64_t>(ElementSize(to));
  const auto transpose = dst_size == 1   ? TransposeTo<1>
                         : dst_size == 2 ? TransposeTo<2>
                         : dst_size == 4 ? TransposeTo<4>
                                         : TransposeTo<8>;
  transpose(convert, src_size, src, src_stride * src_size, dst, dst_stride * dst_size, {rows, cols}, way);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace refit
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace refit {
namespace {

HWY_EXPORT(Convert);
HWY_EXPORT(Transpose);
HWY_EXPORT(Stream);

}  // namespace

void ConvertElements(DType from, DType to, const std::byte* src, std::byte* dst, int64_t count) {
  if (count == 0) return;
  if (from == to) {
    std::memcpy(dst, src, static_cast<size_t>(count) * ElementSize(from));
  } else {
    HWY_DYNAMIC_DISPATCH(Convert)(from, to, src, dst, count);
  }
}

void TransposeElements(DType from, DType to, const std::byte* src, int64_t src_stride, std::byte* dst,
                       int64_t dst_stride, int64_t rows, int64_t cols) {
  const uint64_t bytes = static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols) * ElementSize(to);
  TransposeTheBestWay(from, to, bytes, [&](const TransposeWay& way) {
    HWY_DYNAMIC_DISPATCH(Transpose)(from, to, src, src_stride, dst, dst_stride, rows, cols, way);
  });
}

void CopyPastCache(const std::byte* src, std::byte* dst, size_t size) {
  if (size != 0) HWY_DYNAMIC_DISPATCH(Stream)(src, dst, size);
}

std::vector<std::string> KernelTargets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) names.emplace_back(hwy::TargetName(target));
  return names;
}

bool UseKernelTarget(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);  // all, so that later calls see them
  int64_t wanted = 0;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (name == hwy::TargetName(target)) wanted = target;
  }
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return name.empty() || wanted != 0;
}

}  // namespace refit
#endif
