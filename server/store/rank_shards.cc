#include "server/store/rank_shards.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace refit {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

}  // namespace

absl::StatusOr<bool> RankShards::Join(uint32_t rank, std::vector<Box> boxes) {
  absl::MutexLock lock(&mutex_);
  if (ranks_[rank].joined) {
    return absl::AlreadyExistsError(absl::StrCat("rank ", rank, " of ", world_, " has joined already"));
  }
  ranks_[rank].joined = true;
  ranks_[rank].boxes = std::move(boxes);
  if (++joined_ < world_) return false;
  if (world_ == 1 && HoldsAll(ranks_[0])) {
    ranks_[0].boxes = {};
    complete_ = true;  // there are no other ranks
    return true;
  }
  Group();
  for (size_t tensor = 0; tensor < native_.size(); ++tensor) {
    if (absl::Status status = CheckFit(tensor); !status.ok()) return status;
  }
  ChooseSenders();
  complete_ = true;
  return true;
}

bool RankShards::HoldsAll(const Rank& rank) const {
  return std::equal(native_.begin(), native_.end(), rank.boxes.begin(), rank.boxes.end(),
                    [](const TensorSpec& spec, const Box& box) { return IsWhole(box, spec.shape); });
}

uint32_t RankShards::HolderOf(uint32_t rank, size_t tensor) const {
  return holders_.empty() ? kNone : ranks_[rank].holders[tensor];
}

void RankShards::Group() {
  holders_.resize(native_.size());
  for (Rank& rank : ranks_) rank.holders.resize(native_.size(), kNone);
  for (size_t tensor = 0; tensor < native_.size(); ++tensor) {
    std::map<Box, uint32_t> known;
    for (uint32_t r = 0; r < world_; ++r) {
      Box& box = ranks_[r].boxes[tensor];
      if (ElementCount(box) == 0) continue;
      const auto [place, is_new] = known.emplace(box, static_cast<uint32_t>(holders_[tensor].size()));
      if (is_new) holders_[tensor].push_back({std::move(box), {}, r, std::nullopt, 0});
      holders_[tensor][place->second].ranks.push_back(r);
      ranks_[r].holders[tensor] = place->second;
    }
  }
  for (Rank& rank : ranks_) rank.boxes = {};
}

absl::Status RankShards::CheckFit(size_t tensor) const {
  const TensorSpec& spec = native_[tensor];
  const std::vector<Holders>& holders = holders_[tensor];
  std::vector<Box> boxes;
  boxes.reserve(holders.size());
  for (const Holders& alike : holders) boxes.push_back(alike.box);
  const std::optional<TilingError> error = CheckTiling(spec.shape, boxes);
  if (!error.has_value()) return absl::OkStatus();
  if (error->overlap.has_value()) {
    const Holders& a = holders[error->overlap->first];
    const Holders& b = holders[error->overlap->second];
    return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.ToString(), ": box ", ToString(a.box), " of rank ",
                                                   a.ranks[0], " overlaps box ", ToString(b.box), " of rank ",
                                                   b.ranks[0]));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", spec.ToString(), ": no rank of ", world_, " holds box ", ToString(*error->missing)));
}

void RankShards::ChooseSenders() {
  std::vector<uint64_t> bytes(world_, 0);  // bytes that each rank sends
  const auto choose = [&](bool replicated) {
    for (size_t tensor = 0; tensor < native_.size(); ++tensor) {
      for (Holders& alike : holders_[tensor]) {
        if ((alike.ranks.size() > 1) != replicated) continue;
        alike.sender = *std::min_element(alike.ranks.begin(), alike.ranks.end(),
                                         [&](uint32_t a, uint32_t b) { return bytes[a] < bytes[b]; });
        bytes[alike.sender] += static_cast<uint64_t>(ElementCount(alike.box)) * ElementSize(native_[tensor].dtype);
      }
    }
  };
  choose(false);
  choose(true);
}

bool RankShards::HasJoined(uint32_t rank) const {
  absl::MutexLock lock(&mutex_);
  return ranks_[rank].joined;
}

std::vector<size_t> RankShards::DigestOnly(uint32_t rank) const {
  absl::MutexLock lock(&mutex_);
  std::vector<size_t> tensors;
  for (size_t tensor = 0; tensor < native_.size(); ++tensor) {
    const uint32_t index = HolderOf(rank, tensor);
    if (index != kNone && holders_[tensor][index].sender != rank) tensors.push_back(tensor);
  }
  return tensors;
}

absl::Status RankShards::CheckDigest(uint32_t rank, size_t tensor, uint64_t digest) {
  if (world_ == 1) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  const uint32_t index = HolderOf(rank, tensor);
  if (index == kNone) return absl::OkStatus();
  Holders& alike = holders_[tensor][index];
  if (!alike.digest.has_value()) {
    alike.digest = digest;
    alike.digest_of = rank;
  }
  if (*alike.digest == digest) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat("%s: ranks %d and %d hold different bytes: digests %016x and %016x",
                                             TensorPart{native_[tensor], alike.box}.ToString(), alike.digest_of, rank,
                                             *alike.digest, digest));
}

bool RankShards::Commit(uint32_t rank) {
  absl::MutexLock lock(&mutex_);
  if (!std::exchange(ranks_[rank].committed, true)) ++committed_;
  return committed_ == world_;
}

uint32_t RankShards::joined() const {
  absl::MutexLock lock(&mutex_);
  return joined_;
}

uint32_t RankShards::committed() const {
  absl::MutexLock lock(&mutex_);
  return committed_;
}

std::vector<uint32_t> RankShards::Missing() const {
  absl::MutexLock lock(&mutex_);
  std::vector<uint32_t> missing;
  for (uint32_t r = 0; r < world_; ++r) {
    if (!(complete_ ? ranks_[r].committed : ranks_[r].joined)) missing.push_back(r);
  }
  return missing;
}

bool RankShards::Hear(uint32_t rank) {
  absl::MutexLock lock(&mutex_);
  if (ranks_[rank].joined) return false;
  return !std::exchange(ranks_[rank].heard, true);
}

}  // namespace refit
