// A small model whose every byte is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/publisher.h"
#include "refit/worker.h"

namespace refit {

// Names, shapes and bytes of a small model; bytes differ by version, tensor and place.
class TestModel {
 public:
  // kEverything: no two versions have anything in common. kLittle: they differ in one or two elements of a hundred.
  enum class Changes { kEverything, kLittle };

  explicit TestModel(size_t tensors = 6, int64_t rows = 64, int64_t columns = 512,
                     Changes changes = Changes::kEverything)
      : changes_(changes) {
    for (size_t i = 0; i < tensors; ++i) {
      specs_.push_back({absl::StrCat("layer.", i, ".weight"), DType::kF32, {rows + static_cast<int64_t>(i), columns}});
    }
  }

  const std::vector<TensorSpec>& specs() const { return specs_; }

  static void Fill(uint64_t version, size_t tensor, std::byte* bytes, size_t size) {
    uint64_t state = version * 0x9E3779B97F4A7C15u + tensor * 0xBF58476D1CE4E5B9u + 1;
    for (size_t i = 0; i < size; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[i] = static_cast<std::byte>(state >> 56);
    }
  }

  std::vector<std::byte> Bytes(uint64_t version, size_t tensor) const {
    std::vector<std::byte> bytes(specs_[tensor].ByteSize());
    const bool little = changes_ == Changes::kLittle;
    Fill(little ? 0 : version, tensor, bytes.data(), bytes.size());
    if (little) Mark(version, bytes);
    return bytes;
  }

  PublishOptions Options(uint64_t version) const {
    PublishOptions options;
    options.version = version;
    options.adapter = "identity";
    return options;
  }

  // Opens, pushes and commits a version.
  absl::StatusOr<VersionSummary> Push(Publisher& publisher, const PublishOptions& options) const {
    auto push = publisher.Open(options, specs_);
    if (!push.ok()) return push.status();
    for (size_t i = 0; i < specs_.size(); ++i) {
      const std::vector<std::byte> bytes = Bytes(options.version, i);
      if (absl::Status status = (*push)->Append(i, bytes); !status.ok()) return status;
    }
    return (*push)->Commit();
  }
  absl::StatusOr<VersionSummary> Push(Publisher& publisher, uint64_t version) const {
    return Push(publisher, Options(version));
  }

  // Checks that these are a version's bytes, all of them and nothing else. The error says what differs.
  absl::Status Check(const StagedVersion& staged) const {
    if (staged.tensors.size() != specs_.size()) return absl::InternalError("not all tensors");
    for (size_t i = 0; i < specs_.size(); ++i) {
      const std::vector<std::byte> expected = Bytes(staged.version.version, i);
      const absl::Span<const std::byte> got = staged.tensors[i].bytes;
      if (staged.tensors[i].part.tensor != specs_[i] || got != absl::MakeConstSpan(expected)) {
        return absl::InternalError(absl::StrCat("tensor ", i, " is not that of version ", staged.version.version));
      }
    }
    return absl::OkStatus();
  }

 private:
  // Writes the version into one of 97 elements of 4 bytes, others for each version.
  static void Mark(uint64_t version, std::vector<std::byte>& bytes) {
    for (size_t at = 4 * (version * 31 % 97); at + 4 <= bytes.size(); at += size_t{4} * 97) {
      for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(version >> (8 * i));
    }
  }

  Changes changes_;
  std::vector<TensorSpec> specs_;
};

}  // namespace refit
