#include "common/safetensors/dcp_shards.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/safetensors/tensor_fields_reader.h"

namespace refit {
namespace {

class OffsetsReader final : public TensorFieldsReader {
 public:
  std::map<std::string, Shape> offsets;

 private:
  bool StartTensor() override {
    const auto [place, is_new] = offsets.emplace(tensor(), Shape());
    of_tensor_ = &place->second;
    has_offsets_ = false;
    return is_new;
  }

  bool StartField(const std::string& key) override {
    if (key != "saved_offsets") return FailTensor(absl::StrCat("unknown key ", Quoted(key)));
    return !std::exchange(has_offsets_, true) || FailTensor("saved_offsets is there twice");
  }

  Shape* Numbers() override { return of_tensor_; }
  std::string TooMany() const override { return absl::StrCat("has more than ", kMaxRank, " offsets"); }
  bool EndTensor() override { return has_offsets_ || FailTensor("saved_offsets are missing"); }

  bool Unexpected(absl::string_view came) override {
    if (place() == Place::kStart) return Fail(absl::StrCat("expected an object, got ", came));
    return FailTensor(absl::StrCat("expected saved_offsets, an array of whole numbers, got ", came));
  }

  Shape* of_tensor_ = nullptr;
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
