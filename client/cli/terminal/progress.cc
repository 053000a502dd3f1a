#include "client/cli/terminal/progress.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/terminal/format.h"
#include "common/terminal/terminal.h"

namespace refit::cli {
namespace {

constexpr auto kBarInterval = std::chrono::milliseconds(100);
constexpr auto kLineInterval = std::chrono::seconds(5);
constexpr size_t kWidestBar = 30;
constexpr size_t kNarrowestBar = 8;

double Fraction(uint64_t done, uint64_t total) {
  return total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
}

std::string Gauge(double fraction, size_t width) {
  const size_t filled = static_cast<size_t>(fraction * static_cast<double>(width));
  const bool head = filled < width && filled > 0;
  return absl::StrCat("[", std::string(filled - (head ? 1 : 0), '='), head ? ">" : "", std::string(width - filled, ' '),
                      "]");
}

}  // namespace

std::string RenderBar(const Bar& bar, size_t label_width, size_t width) {
  const double fraction = Fraction(bar.done, bar.total);
  const std::string label = Shorten(bar.label, label_width);
  const std::string percent = absl::StrFormat("%3d %%", static_cast<int>(fraction * 100));
  const std::string padding(label_width - DisplayWidth(label), ' ');
  const size_t taken = label_width + 1 + 2 + 1 + percent.size() + 2 + DisplayWidth(bar.note);
  const size_t room = width > taken ? width - taken : 0;
  const std::string gauge = room < kNarrowestBar ? "" : absl::StrCat(Gauge(fraction, std::min(room, kWidestBar)), " ");
  return absl::StrCat(label, padding, " ", gauge, percent, "  ", bar.note);
}

void LiveLines::Draw(const std::vector<std::string>& lines) {
  // One column and one line stay free: at its last column or line, a terminal would wrap or scroll.
  const size_t width = static_cast<size_t>(std::max(Width(stream_) - 1, 1));
  const size_t height = std::min(lines.size(), static_cast<size_t>(std::max(Height(stream_) - 1, 1)));
  std::string text = drawn_ > 0 ? absl::StrCat("\x1b[", drawn_, "A\r") : "\r";
  for (size_t i = 0; i < height; ++i) absl::StrAppend(&text, Shorten(lines[i], width), "\x1b[K\n");
  absl::StrAppend(&text, "\x1b[J");
  std::fwrite(text.data(), 1, text.size(), stream_);
  std::fflush(stream_);
  drawn_ = height;
}

ProgressStyle ChooseProgressStyle(const CommonOptions& options) {
  if (options.quiet) return ProgressStyle::kNone;
  return IsFancy(stderr) && !options.json ? ProgressStyle::kBars : ProgressStyle::kLines;
}

double TransferProgress::Elapsed() const {
  return std::chrono::duration<double>(end_.value_or(Clock::now()) - begin_).count();
}

void TransferProgress::Start(uint64_t total_bytes, const std::string& what) {
  total_ = total_bytes;
  begin_ = Clock::now();
  next_draw_ = begin_ + (style_ == ProgressStyle::kBars ? Clock::duration(kBarInterval) : kLineInterval);
  if (style_ == ProgressStyle::kLines) out_.Say(absl::StrCat(label_, ": ", what));
  if (style_ == ProgressStyle::kBars) Draw();
}

void TransferProgress::Add(uint64_t bytes) {
  done_ += bytes;
  if (style_ == ProgressStyle::kNone) return;
  const Clock::time_point now = Clock::now();
  if (now < next_draw_) return;
  next_draw_ = now + (style_ == ProgressStyle::kBars ? Clock::duration(kBarInterval) : kLineInterval);
  Draw();
}

void TransferProgress::Finish() {
  const bool again = end_.has_value();
  if (!again) end_ = Clock::now();
  if (style_ == ProgressStyle::kBars || (style_ == ProgressStyle::kLines && !again)) Draw();
}

void TransferProgress::Say(const std::string& what) {
  std::string line = absl::StrCat(label_, ": ", what);
  if (style_ == ProgressStyle::kBars) lines_.Draw({line});
  if (style_ == ProgressStyle::kLines) out_.Say(std::move(line));
}

std::string TransferProgress::Note() const {
  const double elapsed = Elapsed();
  std::string note = absl::StrCat(FormatBytes(done_), " of ", FormatBytes(total_), "  ", FormatRate(done_, elapsed));
  if (done_ > 0 && done_ < total_ && elapsed > 1) {
    const double left = elapsed * static_cast<double>(total_ - done_) / static_cast<double>(done_);
    absl::StrAppend(&note, "  ", left < 100 ? absl::StrFormat("%.0f s", std::max(1.0, left)) : FormatDuration(left),
                    " left");
  } else if (done_ >= total_) {
    absl::StrAppend(&note, "  ", FormatDuration(elapsed));
  }
  return note;
}

void TransferProgress::Draw() {
  if (style_ == ProgressStyle::kBars) {
    lines_.Draw({RenderBar({label_, done_, total_, Note()}, DisplayWidth(label_),
                           static_cast<size_t>(std::max(Width(stderr) - 1, 20)))});
  } else {
    out_.Say(absl::StrCat(label_, ": ", FormatPercent(done_, total_), ", ", Note()));
  }
}

}  // namespace refit::cli
