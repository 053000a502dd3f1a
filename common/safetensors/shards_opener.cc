#include "common/safetensors/shards_opener.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/safetensors/checkpoint_opener.h"
#include "common/safetensors/dcp_shards.h"

namespace refit {
namespace {

constexpr absl::string_view kShardsOfOneRank =
    "one rank's shards as torch.distributed.checkpoint saves them (DCP_SHARDING_INFO), which do not tell how large the "
    "tensors are";

// Whether torch's metadata only says that the file's tensors begin at offset 0, which is also true of whole tensors.
absl::StatusOr<bool> HoldsWholeTensors(const std::string& sharding) {
  const auto offsets = ParseDcpOffsets(sharding);
  if (!offsets.ok()) return offsets.status();
  return std::all_of(offsets->begin(), offsets->end(), [](const auto& tensor) {
    return std::all_of(tensor.second.begin(), tensor.second.end(), [](int64_t offset) { return offset == 0; });
  });
}

// "2, 5": the first few of the ranks from 1 to `count` that are not in `ranks`.
std::string MissingRanks(const std::set<uint64_t>& ranks, uint64_t count) {
  constexpr size_t kNamed = 8;
  std::string missing;
  size_t named = 0;
  for (uint64_t rank = 1; rank <= count && named <= kNamed; ++rank) {
    if (ranks.count(rank) > 0) continue;
    absl::StrAppend(&missing, missing.empty() ? "" : ", ", ++named > kNamed ? "..." : absl::StrCat(rank));
  }
  return missing;
}

// Checks that there are files of all ranks. Missing last ranks can only be detected if the number of ranks is known.
absl::Status CheckRanks(const std::string& folder, const std::vector<std::string>& paths,
                        const std::set<uint64_t>& ranks, uint64_t expected) {
  const uint64_t count = expected > 0 ? expected : *ranks.rbegin();
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(Printable(folder), ": ", why));
  };
  if (*ranks.rbegin() > count) {
    return refuse(absl::StrCat("has the shards of rank ", *ranks.rbegin(), " (counted from 1); expected ", count,
                               count == 1 ? " rank" : " ranks"));
  }
  if (ranks.size() < count) {
    return refuse(absl::StrCat("the shards of ranks ", MissingRanks(ranks, count), " of ", count,
                               " (counted from 1, as in shard-00001-model-...) are not there; bring all ranks' files "
                               "into one folder"));
  }
  if (expected == 0 && count == 1) {
    return refuse(absl::StrCat("its files hold ", kShardsOfOneRank,
                               "; bring all ranks' files into one folder. If there "
                               "was only one rank, push ",
                               Printable(FileNameOf(paths.front())), " with --rank 0 --world 1"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Checkpoint::ShardsOpener::Refuse(const SafetensorsFile& file, bool is_indexed) {
  const auto sharding = file.metadata().find(kDcpShardingKey);
  if (sharding == file.metadata().end()) return absl::OkStatus();
  if (is_indexed) {
    const absl::StatusOr<bool> is_whole = HoldsWholeTensors(sharding->second);
    if (!is_whole.ok()) return InFile(file, is_whole.status().message());
    if (*is_whole) return absl::OkStatus();
  }
  return InFile(file, absl::StrCat("it holds ", kShardsOfOneRank,
                                   "; name the folder that has all ranks' files, or push this one from there with "
                                   "--rank and --world"));
}

absl::Status Checkpoint::ShardsOpener::Open(const std::string& folder, const std::vector<std::string>& paths) {
  std::set<uint64_t> ranks;
  for (const std::string& path : paths) {
    checkpoint_.ranks_.push_back(*DcpRankOf(FileNameOf(path)));
    ranks.insert(checkpoint_.ranks_.back());
  }
  if (absl::Status status = CheckRanks(folder, paths, ranks, options_.ranks); !status.ok()) return status;
  for (const std::string& path : paths) {
    if (absl::Status status = AddShards(path); !status.ok()) return status;
  }
  for (size_t i = checkpoint_.tensors_.size(); i-- > 0;) {
    const absl::Status status = CheckWhole(i);
    if (status.ok() && broken_.count(checkpoint_.tensors_[i].name) == 0) continue;
    if (!Matches(options_.excluded, checkpoint_.tensors_[i].name)) {
      return absl::Status(status.code(), absl::StrCat(Printable(folder), ": ", status.message()));
    }
    checkpoint_.tensors_.erase(checkpoint_.tensors_.begin() + static_cast<ptrdiff_t>(i));
    checkpoint_.pieces_.erase(checkpoint_.pieces_.begin() + static_cast<ptrdiff_t>(i));
  }
  checkpoint_.is_mapped_ = false;
  checkpoint_.note_ =
      absl::StrCat(Printable(folder), ": the shards of ", ranks.size(), ranks.size() == 1 ? " rank" : " ranks",
                   ", as torch.distributed.checkpoint saves them");
  return absl::OkStatus();
}

absl::Status Checkpoint::ShardsOpener::AddShards(const std::string& path) {
  const auto opened = SafetensorsFile::Open(path, options_.excluded);
  if (!opened.ok()) return opened.status();
  const SafetensorsFile& file = **opened;
  const auto sharding = file.metadata().find(kDcpShardingKey);
  if (sharding == file.metadata().end()) return InFile(file, absl::StrCat("has no ", kDcpShardingKey));
  const auto offsets = ParseDcpOffsets(sharding->second);
  if (!offsets.ok()) return InFile(file, offsets.status().message());
  checkpoint_.files_.push_back(*opened);
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const auto begin = offsets->find(file.tensors()[i].name);
    absl::Status status = begin == offsets->end()
                              ? absl::InvalidArgumentError(absl::StrCat(kDcpShardingKey, " does not have it"))
                              : AddShard(i, begin->second);
    if (status.ok()) continue;
    if (Matches(options_.excluded, file.tensors()[i].name)) {
      broken_.insert(file.tensors()[i].name);
      continue;
    }
    return InFile(file, absl::StrCat("tensor ", file.tensors()[i].ToString(), ": ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::ShardsOpener::AddShard(size_t index, const Shape& begin) {
  const size_t file = checkpoint_.files_.size() - 1;
  const TensorSpec& shard = checkpoint_.files_[file]->tensors()[index];
  if (begin.size() != shard.shape.size()) {
    return absl::InvalidArgumentError(absl::StrCat(kDcpShardingKey, " has offsets ", ToString(begin)));
  }
  const auto [place, is_new] = places_.emplace(shard.name, checkpoint_.tensors_.size());
  if (is_new) {
    checkpoint_.tensors_.push_back(shard);
    checkpoint_.pieces_.emplace_back();
  }
  TensorSpec& whole = checkpoint_.tensors_[place->second];
  if (whole.dtype != shard.dtype || whole.shape.size() != shard.shape.size()) {
    return absl::InvalidArgumentError(absl::StrCat("other ranks have ", whole.ToString()));
  }
  for (size_t d = 0; d < begin.size(); ++d) {
    int64_t end = 0;
    if (__builtin_add_overflow(begin[d], shard.shape[d], &end)) {
      return absl::InvalidArgumentError(absl::StrCat(kDcpShardingKey, " has offsets ", ToString(begin)));
    }
    whole.shape[d] = std::max(whole.shape[d], end);
  }
  Box box{begin, shard.shape};
  // A rank that holds nothing of a tensor has an empty box, or no entry.
  if (ElementCount(box) > 0) checkpoint_.pieces_[place->second].push_back({file, index, std::move(box)});
  return absl::OkStatus();
}

absl::Status Checkpoint::ShardsOpener::CheckWhole(size_t index) const {
  const TensorSpec& whole = checkpoint_.tensors_[index];
  if (absl::Status status = Validate(whole); !status.ok()) return status;
  const std::vector<Piece>& pieces = checkpoint_.pieces_[index];
  std::vector<Box> boxes;
  boxes.reserve(pieces.size());
  for (const Piece& piece : pieces) boxes.push_back(piece.box);
  const std::optional<TilingError> error = CheckTiling(whole.shape, boxes);
  if (!error.has_value()) return absl::OkStatus();
  const std::string tensor = absl::StrCat("tensor ", whole.ToString(), ": ");
  if (error->missing.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(tensor, "no shard has ", ToString(*error->missing)));
  }
  const auto describe = [&](size_t piece) {
    return absl::StrCat(ToString(pieces[piece].box), " of ",
                        FileNameOf(checkpoint_.files_[pieces[piece].file]->path()));
  };
  return absl::InvalidArgumentError(absl::StrCat(tensor, "shards overlap: ", describe(error->overlap->first), " and ",
                                                 describe(error->overlap->second)));
}

}  // namespace refit
