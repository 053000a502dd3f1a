#include "client/worker/memory_in_use.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "common/net/version_key.h"

namespace refit {

void MemoryInUse::Remember(const Staging& staging) { remembered_ = staging; }

void MemoryInUse::Use() {
  std::optional<Staging> now = std::exchange(remembered_, std::nullopt);
  if (!now.has_value()) return;
  ++state_;
  back_.reset();
  if (now->deltas != nullptr && held_.has_value() && SamePlaces(held_->version, now->version)) {
    back_ = Staging{std::move(held_->version), now->deltas, state_};
  }
  held_ = Held{std::move(now->version), false, {}};
  held_->is_disjoint = AreDisjoint(held_->version.tensors);
  for (size_t i = 0; i < held_->version.tensors.size(); ++i) {
    held_->by_name.emplace(held_->version.tensors[i].part.tensor.name, i);
  }
}

void MemoryInUse::Forget() {
  ++state_;
  held_.reset();
  back_.reset();
}

std::shared_ptr<const PullBase> MemoryInUse::Base() const {
  if (!held_.has_value() || !held_->is_disjoint) return nullptr;
  const StagedVersion& version = held_->version;
  auto base = std::make_shared<PullBase>();
  base->version = version.version.version;
  base->trainer_epoch = version.version.trainer_epoch;
  base->digest = version.selection_digest;
  base->tensors.reserve(version.tensors.size());
  for (const StagedVersion::Tensor& tensor : version.tensors) {
    base->tensors.push_back({tensor.part, tensor.bytes, nullptr});
  }
  return base;
}

bool MemoryInUse::IsAt(const TensorPart& part, absl::Span<const std::byte> memory) const {
  if (!held_.has_value()) return false;
  const auto found = held_->by_name.find(part.tensor.name);
  if (found == held_->by_name.end()) return true;
  const StagedVersion::Tensor& tensor = held_->version.tensors[found->second];
  return !(tensor.part == part) || (tensor.bytes.data() == memory.data() && tensor.bytes.size() == memory.size());
}

std::optional<Staging> MemoryInUse::WayBack(const VersionSummary& version, const Place& place) const {
  if (!back_.has_value() || KeyOf(back_->version.version) != KeyOf(version)) return std::nullopt;
  for (const StagedVersion::Tensor& tensor : back_->version.tensors) {
    const absl::StatusOr<absl::Span<std::byte>> memory = place(tensor.part);
    if (!memory.ok() || !IsAt(tensor.part, *memory)) return std::nullopt;
  }
  const absl::StatusOr<uint64_t> digest = back_->deltas->Preview(version.chunk_bytes);
  if (!digest.ok() || *digest != back_->version.selection_digest) return std::nullopt;
  return back_;
}

bool MemoryInUse::SamePlaces(const StagedVersion& a, const StagedVersion& b) {
  return std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(),
                    [](const StagedVersion::Tensor& one, const StagedVersion::Tensor& other) {
                      return one.part == other.part && one.bytes.data() == other.bytes.data();
                    });
}

bool AreDisjoint(absl::Span<const StagedVersion::Tensor> tensors) {
  std::vector<absl::Span<const std::byte>> ranges;
  for (const StagedVersion::Tensor& tensor : tensors) {
    if (!tensor.bytes.empty()) ranges.emplace_back(tensor.bytes);
  }
  const std::less<const std::byte*> before;
  std::sort(ranges.begin(), ranges.end(), [&](const auto& a, const auto& b) { return before(a.data(), b.data()); });
  const auto overlap = [&](const auto& a, const auto& b) { return before(b.data(), a.data() + a.size()); };
  return std::adjacent_find(ranges.begin(), ranges.end(), overlap) == ranges.end();
}

}  // namespace refit
