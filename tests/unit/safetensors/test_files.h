// Folders and files for the tests of this folder.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace refit {

// A test with a folder of its own, removed afterwards.
class FolderTest : public testing::Test {
 public:
  ~FolderTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 protected:
  FolderTest() {
    std::string pattern = testing::TempDir() + "refit_safetensors_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }

  std::string Path(const std::string& name) const { return folder_ / name; }

  std::string WriteFile(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }

  static std::string ReadFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_;
};

inline std::string LengthOf(uint64_t header_bytes) {
  return {reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes)};
}

// A safetensors file of this header and this much data.
inline std::string FileOf(const std::string& header, const std::string& data = "") {
  return LengthOf(header.size()) + header + data;
}

inline std::string AsString(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace refit
