// Chooses how large matrices are transposed. Which way is the fastest differs between processors; all give the same
// bits. Private to common/tensor and its tests.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/functional/function_ref.h"
#include "refit/dtype.h"

namespace refit {

// How a transposition writes a destination that is larger than the cache.
struct TransposeWay {
  const char* name;
  int lines;        // cache lines of each row of the destination that are written together
  bool past_cache;  // by streaming stores
};

// The first one is used unless another is clearly faster.
inline constexpr std::array<TransposeWay, 3> kTransposeWays = {
    {{"streamed", 1, true}, {"streamed by two lines", 2, true}, {"cached", 1, false}}};

// Times the ways in turns, on the work itself, so that nothing is spent on it but the turns of the slower ones: some
// milliseconds in all. Then it uses the fastest. Any thread may call it.
class WayTrial {
 public:
  // Of each way. Its best turn counts: on a busy machine that is the least disturbed one.
  static constexpr size_t kTurns = 12;
  static constexpr double kClearly = 1.2;

  // The way of the next piece of work. While the trial lasts, tell it how long that took.
  size_t Next();
  void Took(size_t way, uint64_t bytes, std::chrono::nanoseconds time);

  // The fastest, once it is known.
  std::optional<size_t> chosen() const;

 private:
  static constexpr size_t kUndecided = kTransposeWays.size();

  void Decide();

  std::atomic<size_t> chosen_ = kUndecided;
  std::mutex mutex_;
  size_t begun_ = 0;
  size_t ended_ = 0;
  std::array<double, kTransposeWays.size()> best_rates_{};
};

// Transposes `bytes` of destination, cast from one type to the other, in the way that is chosen or tried next.
// TransposeWays, UseTransposeWay and ChosenTransposeWay (kernels.h) are about the same choice.
void TransposeTheBestWay(DType from, DType to, uint64_t bytes, absl::FunctionRef<void(const TransposeWay&)> transpose);

}  // namespace refit
