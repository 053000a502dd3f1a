#include "common/tensor/kernels.h"

#include <algorithm>
#include <cstring>
#include <utility>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "common/tensor/float_bits.h"

namespace refit {
namespace {

template <typename T>
T Load(const std::byte* src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

template <typename T>
void Store(std::byte* dst, T value) {
  std::memcpy(dst, &value, sizeof(T));
}

// How the castable types are stored, and the arithmetic type that stands for them while one is converted.
struct F64 {
  using Stored = double;
  using Value = double;
  static Value Decode(Stored stored) { return stored; }
  static Stored Encode(Value value) { return value; }
};
struct F32 {
  using Stored = float;
  using Value = float;
  static Value Decode(Stored stored) { return stored; }
  static Stored Encode(Value value) { return value; }
};
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

using Converter = void (*)(const std::byte* src, std::byte* dst, int64_t count);

template <typename From, typename To>
void ConvertRun(const std::byte* __restrict src, std::byte* __restrict dst, int64_t count) {
  using Source = typename From::Stored;
  using Target = typename To::Stored;
  for (int64_t i = 0; i < count; ++i) {
    const auto value = From::Decode(Load<Source>(src + i * sizeof(Source)));
    Store<Target>(dst + i * sizeof(Target), To::Encode(static_cast<typename To::Value>(value)));
  }
}

template <typename From>
Converter ConverterFrom(DType to) {
  switch (to) {
    case DType::kF64:
      return ConvertRun<From, F64>;
    case DType::kF32:
      return ConvertRun<From, F32>;
    case DType::kF16:
      return ConvertRun<From, F16>;
    default:
      return ConvertRun<From, BF16>;
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

template <size_t kSize>
struct UnsignedOfSize;
template <>
struct UnsignedOfSize<1> {
  using Type = uint8_t;
};
template <>
struct UnsignedOfSize<2> {
  using Type = uint16_t;
};
template <>
struct UnsignedOfSize<4> {
  using Type = uint32_t;
};
template <>
struct UnsignedOfSize<8> {
  using Type = uint64_t;
};

// Square tiles of 16-byte rows, transposed in vector registers.
template <size_t kSize>
struct Tile {
  using Element = typename UnsignedOfSize<kSize>::Type;
  static constexpr int64_t kEdge = 16 / kSize;
  using Vector __attribute__((vector_size(16))) = Element;

  // a[h], b[h], a[h + 1], b[h + 1], ... where h is 0, or half of the vector.
  template <int64_t kFirst, size_t... kIndex>
  static Vector Interleave(Vector a, Vector b, std::index_sequence<kIndex...>) {
    return __builtin_shufflevector(a, b, (kFirst + kIndex / 2 + (kIndex % 2) * kEdge)...);
  }

  // Each pass shuffles the tile's index bits round by one; after log2(edge) passes rows and columns have changed
  // places.
  static void Transpose(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride) {
    constexpr auto kLanes = std::make_index_sequence<kEdge>();
    Vector rows[kEdge];
    Vector next[kEdge];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kEdge; ++i) rows[i] = Load<Vector>(src + i * src_stride);
#pragma GCC unroll 16
    for (int64_t pass = 1; pass < kEdge; pass *= 2) {
#pragma GCC unroll 16
      for (int64_t i = 0; i < kEdge / 2; ++i) {
        next[2 * i] = Interleave<0>(rows[i], rows[i + kEdge / 2], kLanes);
        next[2 * i + 1] = Interleave<kEdge / 2>(rows[i], rows[i + kEdge / 2], kLanes);
      }
#pragma GCC unroll 16
      for (int64_t i = 0; i < kEdge; ++i) rows[i] = next[i];
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kEdge; ++i) Store<Vector>(dst + i * dst_stride, rows[i]);
  }
};

struct Extent {
  int64_t rows;
  int64_t cols;
};

template <size_t kSize>
void TransposeScalar(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride, Extent extent) {
  using Element = typename UnsignedOfSize<kSize>::Type;
  for (int64_t c = 0; c < extent.cols; ++c) {
    for (int64_t r = 0; r < extent.rows; ++r) {
      Store(dst + c * dst_stride + r * kSize, Load<Element>(src + r * src_stride + c * kSize));
    }
  }
}

constexpr int64_t kLine = 64;         // bytes of a cache line
constexpr int64_t kBlockBytes = 128;  // of a block's rows, before and after; all of a block fits into the first cache

// Rows that will be read soon. They are fetched bit by bit while the tiles before them are worked on: all at once would
// wait for memory.
class Upcoming {
 public:
  Upcoming(const std::byte* src, int64_t stride, int64_t rows, int64_t row_bytes)
      : src_(src), stride_(stride), rows_(row_bytes > 0 ? rows : 0), row_bytes_(row_bytes) {}

  void Fetch(int64_t rows) {
    for (const int64_t end = std::min(rows_, row_ + rows); row_ < end; ++row_) {
      for (int64_t at = 0; at < row_bytes_; at += kLine) __builtin_prefetch(src_ + row_ * stride_ + at);
    }
  }

 private:
  const std::byte* src_;
  int64_t stride_;
  int64_t rows_;
  int64_t row_bytes_;
  int64_t row_ = 0;
};

// Strides count bytes from here on.
template <size_t kSize>
void TransposeBlock(const std::byte* src, int64_t src_stride, std::byte* dst, int64_t dst_stride, Extent extent,
                    Upcoming upcoming) {
  constexpr int64_t kEdge = Tile<kSize>::kEdge;
  const int64_t whole_rows = extent.rows - extent.rows % kEdge;
  const int64_t whole_cols = extent.cols - extent.cols % kEdge;
  for (int64_t c = 0; c < whole_cols; c += kEdge) {
    upcoming.Fetch(kEdge);  // blocks are square: all is fetched when the last tile is done
    for (int64_t r = 0; r < whole_rows; r += kEdge) {
      Tile<kSize>::Transpose(src + r * src_stride + c * kSize, src_stride, dst + c * dst_stride + r * kSize,
                             dst_stride);
    }
  }
  TransposeScalar<kSize>(src + whole_cols * kSize, src_stride, dst + whole_cols * dst_stride, dst_stride,
                         {whole_rows, extent.cols - whole_cols});
  TransposeScalar<kSize>(src + whole_rows * src_stride, src_stride, dst + whole_rows * kSize, dst_stride,
                         {extent.rows - whole_rows, extent.cols});
}

// From this size on the destination would leave the cache before anybody reads it, so it is written past the cache.
constexpr int64_t kStreamBytes = 4 << 20;

bool ShouldStream(const std::byte* dst, int64_t dst_stride, int64_t cols) {
#ifdef __SSE2__
  return reinterpret_cast<uintptr_t>(dst) % kLine == 0 && dst_stride % kLine == 0 && dst_stride * cols >= kStreamBytes;
#else
  return static_cast<void>(dst), dst_stride * cols < 0;
#endif
}

// Copies past the cache; `dst` is aligned to a line.
void StreamRow(const std::byte* src, std::byte* dst, int64_t bytes) {
  int64_t at = 0;
#ifdef __SSE2__
  for (; at + 16 <= bytes; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + at), _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + at)));
  }
#endif
  std::memcpy(dst + at, src + at, static_cast<size_t>(bytes - at));
}

void StreamFence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// Goes block by block, along the source's rows. A block is whole cache lines on both sides. With a cast, its rows are
// converted into `converted` first; with streaming, its transposed rows are collected in `collected`.
template <size_t kSize>
void TransposeBlocks(Converter convert, int64_t src_size, const std::byte* src, int64_t src_stride, std::byte* dst,
                     int64_t dst_stride, Extent extent) {
  constexpr int64_t kBlock = kBlockBytes / kSize;
  alignas(kLine) std::byte converted[kBlock * kBlockBytes];
  alignas(kLine) std::byte collected[kBlock * kBlockBytes];
  const bool stream = ShouldStream(dst, dst_stride, extent.cols);
  for (int64_t r = 0; r < extent.rows; r += kBlock) {
    for (int64_t c = 0; c < extent.cols; c += kBlock) {
      const Extent block{std::min(kBlock, extent.rows - r), std::min(kBlock, extent.cols - c)};
      const std::byte* from = src + r * src_stride + c * src_size;
      std::byte* to = dst + c * dst_stride + r * static_cast<int64_t>(kSize);
      const Upcoming upcoming(from + block.cols * src_size, src_stride, block.rows,
                              std::min(kBlock, extent.cols - c - block.cols) * src_size);
      const std::byte* rows = from;
      int64_t rows_stride = src_stride;
      if (convert != nullptr) {
        for (int64_t i = 0; i < block.rows; ++i) {
          convert(from + i * src_stride, converted + i * kBlockBytes, block.cols);
        }
        rows = converted;
        rows_stride = kBlockBytes;
      }
      if (!stream) {
        TransposeBlock<kSize>(rows, rows_stride, to, dst_stride, block, upcoming);
        continue;
      }
      TransposeBlock<kSize>(rows, rows_stride, collected, kBlockBytes, block, upcoming);
      for (int64_t i = 0; i < block.cols; ++i) {
        StreamRow(collected + i * kBlockBytes, to + i * dst_stride, block.rows * static_cast<int64_t>(kSize));
      }
    }
  }
  if (stream) StreamFence();
}

// The number one, in the element's bytes.
uint64_t OneBits(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return std::bit_cast<uint64_t>(1.0);
    case DType::kF32:
      return std::bit_cast<uint32_t>(1.0F);
    case DType::kF16:
      return 0x3C00;
    case DType::kBF16:
      return 0x3F80;
    case DType::kF8E4M3:
      return 0x38;
    case DType::kF8E5M2:
      return 0x3C;
    default:
      return 1;
  }
}

}  // namespace

bool CanConvert(DType from, DType to) { return from == to || (IsCastable(from) && IsCastable(to)); }

void ConvertElements(DType from, DType to, const std::byte* src, std::byte* dst, int64_t count) {
  if (count == 0) return;
  if (from == to) {
    std::memcpy(dst, src, static_cast<size_t>(count) * ElementSize(from));
  } else {
    ConverterOf(from, to)(src, dst, count);
  }
}

void TransposeElements(DType from, DType to, const std::byte* src, int64_t src_stride, std::byte* dst,
                       int64_t dst_stride, int64_t rows, int64_t cols) {
  const Converter convert = from == to ? nullptr : ConverterOf(from, to);
  const auto src_size = static_cast<int64_t>(ElementSize(from));
  const auto dst_size = static_cast<int64_t>(ElementSize(to));
  const auto transpose = dst_size == 1   ? TransposeBlocks<1>
                         : dst_size == 2 ? TransposeBlocks<2>
                         : dst_size == 4 ? TransposeBlocks<4>
                                         : TransposeBlocks<8>;
  transpose(convert, src_size, src, src_stride * src_size, dst, dst_stride * dst_size, {rows, cols});
}

void FillOnes(DType dtype, std::byte* dst, int64_t count) {
  const size_t size = ElementSize(dtype);
  const uint64_t one = OneBits(dtype);
  for (int64_t i = 0; i < count; ++i) std::memcpy(dst + i * static_cast<int64_t>(size), &one, size);
}

double ElementAsDouble(DType dtype, const std::byte* src, int64_t index) {
  const std::byte* element = src + index * static_cast<int64_t>(ElementSize(dtype));
  switch (dtype) {
    case DType::kF64:
      return Load<double>(element);
    case DType::kF32:
      return Load<float>(element);
    case DType::kF16:
      return DecodeF16(Load<uint16_t>(element));
    case DType::kBF16:
      return DecodeBF16(Load<uint16_t>(element));
    case DType::kF8E4M3:
      return DecodeF8E4M3(Load<uint8_t>(element));
    case DType::kF8E5M2:
      return DecodeF8E5M2(Load<uint8_t>(element));
    case DType::kI64:
      return static_cast<double>(Load<int64_t>(element));
    case DType::kI32:
      return Load<int32_t>(element);
    case DType::kI16:
      return Load<int16_t>(element);
    case DType::kI8:
      return Load<int8_t>(element);
    case DType::kU8:
      return Load<uint8_t>(element);
    case DType::kBool:
      return Load<uint8_t>(element) != 0 ? 1 : 0;
  }
  return 0;
}

}  // namespace refit
