#include "client/cli/options/stream_options.h"

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace refit::cli {
namespace {

constexpr uint32_t kMost = 64;

std::string Parse(const std::string& text, uint32_t& streams) {
  if (text == "auto") {
    streams = 0;
    return "";
  }
  if (absl::SimpleAtoi(text, &streams) && streams >= 1 && streams <= kMost) return "";
  return absl::StrCat("'", text, "' is not auto, or a number of connections from 1 to ", kMost);
}

}  // namespace

void AddStreamsOption(CLI::App* command, uint32_t& streams) {
  command
      ->add_option_function<std::string>(
          "--streams", [&streams](const std::string& text) { (void)Parse(text, streams); },
          "Pull over so many connections, each with a part of the bytes: for links on which one connection is slower "
          "than the link. auto: as many as pay (default: 1)")
      ->check(CLI::Validator(
          [](std::string& text) {
            uint32_t parsed = 0;
            return Parse(text, parsed);
          },
          ""))
      ->type_name("N|auto");
}

}  // namespace refit::cli
