#include "common/safetensors/dcp_shards.h"

#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/safetensors/strict_json.h"

namespace refit {
namespace {

class OffsetsReader final : public StrictJsonReader {
 public:
  std::map<std::string, Shape> offsets;

  bool start_object(size_t) override {
    if (place_ != Place::kStart && place_ != Place::kTop) return Unexpected("an object");
    place_ = place_ == Place::kStart ? Place::kTop : Place::kTensor;
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::kTensor) {
      if (key != "saved_offsets") return FailTensor(absl::StrCat("unknown key ", Quoted(key)));
      return !std::exchange(has_offsets_, true) || FailTensor("saved_offsets is there twice");
    }
    tensor_ = key;
    has_offsets_ = false;
    return offsets.emplace(key, Shape()).second || FailTensor("is there twice");
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor) return Unexpected("an array");
    place_ = Place::kArray;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kArray || value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return StrictJsonReader::number_unsigned(value);
    }
    Shape& numbers = offsets[tensor_];
    if (numbers.size() == kMaxRank) return FailTensor(absl::StrCat("has more than ", kMaxRank, " offsets"));
    numbers.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor && !has_offsets_) return FailTensor("saved_offsets are missing");
    place_ = Place::kTop;
    return true;
  }

 private:
  enum class Place { kStart, kTop, kTensor, kArray };

  bool Unexpected(absl::string_view came) override {
    if (place_ == Place::kStart) return Fail(absl::StrCat("expected an object, got ", came));
    return FailTensor(absl::StrCat("expected saved_offsets, an array of whole numbers, got ", came));
  }

  bool FailTensor(absl::string_view message) { return Fail(absl::StrCat("tensor ", Quoted(tensor_), ": ", message)); }

  Place place_ = Place::kStart;
  std::string tensor_;
  bool has_offsets_ = false;
};

}  // namespace

absl::StatusOr<std::map<std::string, Shape>> ParseDcpOffsets(absl::string_view json) {
  OffsetsReader reader;
  if (absl::Status status = reader.Read(json); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("metadata ", kDcpShardingKey, ": ", status.message()));
  }
  return std::move(reader.offsets);
}

std::optional<uint64_t> DcpRankOf(absl::string_view file_name) {
  uint64_t rank = 0;
  if (!absl::ConsumePrefix(&file_name, "shard-") || !absl::ConsumeSuffix(&file_name, ".safetensors")) {
    return std::nullopt;
  }
  const size_t digits = file_name.find('-');
  if (digits == absl::string_view::npos || !absl::StartsWith(file_name.substr(digits), "-model-") ||
      !absl::SimpleAtoi(file_name.substr(0, digits), &rank) || rank == 0) {
    return std::nullopt;
  }
  return rank;
}

}  // namespace refit
