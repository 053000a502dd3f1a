// How far a transfer is: bars on a terminal, plain lines elsewhere, nothing if quiet. All on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/run/common_options.h"
#include "client/cli/terminal/status_lines.h"

namespace refit::cli {

// One line: a label, a bar, and what stands behind it.
struct Bar {
  std::string label;
  uint64_t done = 0;
  uint64_t total = 0;
  std::string note;
};

// `bar` within `width` columns; labels take `label_width` of them.
std::string RenderBar(const Bar& bar, size_t label_width, size_t width);

// Lines at the end of a terminal that are drawn again and again in the same place.
class LiveLines {
 public:
  explicit LiveLines(std::FILE* stream) : stream_(stream) {}
  // Cut to the terminal's width and height.
  void Draw(const std::vector<std::string>& lines);

 private:
  std::FILE* stream_;
  size_t drawn_ = 0;
};

enum class ProgressStyle { kNone, kLines, kBars };
ProgressStyle ChooseProgressStyle(const CommonOptions& options);

// One transfer. Used from one thread.
class TransferProgress {
 public:
  TransferProgress(ProgressStyle style, std::string label) : style_(style), label_(std::move(label)) {}

  // The clock starts; `what` is said on plain output.
  void Start(uint64_t total_bytes, const std::string& what);
  // May be called as often as one likes; draws a few times a second.
  void Add(uint64_t bytes);
  // Draws the end; the clock stops.
  void Finish();
  // Something that the transfer waits for, before it starts or after it ended: a line, gone with the next drawing where
  // there are bars.
  void Say(const std::string& what);

 private:
  using Clock = std::chrono::steady_clock;
  double Elapsed() const;
  std::string Note() const;
  void Draw();

  ProgressStyle style_;
  std::string label_;
  LiveLines lines_{stderr};
  StatusLines out_{stderr};  // a transfer goes on if nobody reads how far it is
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  Clock::time_point begin_;
  std::optional<Clock::time_point> end_;
  Clock::time_point next_draw_;
};

}  // namespace refit::cli
