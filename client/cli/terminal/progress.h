// Shows the progress of a transfer on stderr: bars on a terminal, plain lines elsewhere, nothing with --quiet.
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

// One line: a label, a bar, and a text after it.
struct Bar {
  std::string label;
  uint64_t done = 0;
  uint64_t total = 0;
  std::string note;
};

// Draws `bar` within `width` columns, of which labels take `label_width`.
std::string RenderBar(const Bar& bar, size_t label_width, size_t width);

// Lines at the bottom of a terminal that are redrawn in place.
class LiveLines {
 public:
  explicit LiveLines(std::FILE* stream) : stream_(stream) {}
  // Draws the lines, cut to the terminal's width and height.
  void Draw(const std::vector<std::string>& lines);

 private:
  std::FILE* stream_;
  size_t drawn_ = 0;
};

enum class ProgressStyle { kNone, kLines, kBars };
ProgressStyle ChooseProgressStyle(const CommonOptions& options);

// The progress of one transfer. Call it from one thread.
class TransferProgress {
 public:
  TransferProgress(ProgressStyle style, std::string label) : style_(style), label_(std::move(label)) {}

  // Starts the clock. Plain output shows `what`.
  void Start(uint64_t total_bytes, const std::string& what);
  // Call it as often as you like: it draws only a few times a second.
  void Add(uint64_t bytes);
  // Draws the final state and stops the clock.
  void Finish();
  // Shows what the transfer waits for, before its start or after its end. Where there are bars, the next drawing
  // replaces the line.
  void Say(const std::string& what);

 private:
  using Clock = std::chrono::steady_clock;
  double Elapsed() const;
  std::string Note() const;
  void Draw();

  ProgressStyle style_;
  std::string label_;
  LiveLines lines_{stderr};
  StatusLines out_{stderr};  // a transfer continues even if nobody reads stderr
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  Clock::time_point begin_;
  std::optional<Clock::time_point> end_;
  Clock::time_point next_draw_;
};

}  // namespace refit::cli
