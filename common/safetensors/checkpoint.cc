#include <algorithm>
#include <cstring>
#include <filesystem>
#include <new>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/safetensors/checkpoint_index.h"
#include "common/safetensors/dcp_shards.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/strict_json.h"
#include "refit/memory_probe.h"

namespace refit {
namespace {

constexpr absl::string_view kShardsOfOneRank =
    "one rank's shards as torch.distributed.checkpoint saves them (DCP_SHARDING_INFO), which do not tell how large the "
    "tensors are";

bool Matches(const NameFilter& filter, absl::string_view name) { return filter && filter(name); }

std::string NameOf(absl::string_view path) { return std::filesystem::path(std::string(path)).filename().string(); }

absl::Status InFile(const SafetensorsFile& file, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(Printable(file.path()), ": ", message));
}

// The *.safetensors files of a folder, by name.
absl::StatusOr<std::vector<std::string>> ListFiles(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == ".safetensors") found.push_back(at->path().string());
  }
  if (error) return FileError(error.value(), "list", folder);
  std::sort(found.begin(), found.end());
  return found;
}

// Whether all that torch says of a file's tensors is that they begin where the whole ones do.
absl::StatusOr<bool> HoldsWholeTensors(const std::string& sharding) {
  const auto offsets = ParseDcpOffsets(sharding);
  if (!offsets.ok()) return offsets.status();
  return std::all_of(offsets->begin(), offsets->end(), [](const auto& tensor) {
    return std::all_of(tensor.second.begin(), tensor.second.end(), [](int64_t offset) { return offset == 0; });
  });
}

// A rank's file is no model, even where it could be read as one: the first rank's tensors begin at 0 as whole ones do.
// Only an index says that a file is a whole one.
absl::Status RefuseShards(const SafetensorsFile& file, bool is_indexed) {
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

// "2, 5" of the ranks from 1 to `count` that are not in `ranks`; a few of them.
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

// That there are files of all ranks. The last ones cannot be missed unless their number is known.
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
                               Printable(NameOf(paths.front())), " with --rank 0 --world 1"));
  }
  return absl::OkStatus();
}

// A run of a box's elements that stand in one piece in the box and in the tensor.
struct Run {
  int64_t place;  // of its first element, in the box
  int64_t count;
};

// From element `first` of the tensor on; nullopt if the box does not have that.
std::optional<Run> RunFrom(absl::Span<const int64_t> shape, const Box& box, int64_t first) {
  Run run{0, 1};
  int64_t stride = 1;  // elements of the box from one index of dimension d to the next
  int64_t inner = 0;   // elements of the run's block before the first
  bool is_contiguous = true;
  for (size_t d = shape.size(); d-- > 0;) {
    const int64_t index = first % shape[d] - box.offsets[d];
    first /= shape[d];
    if (index < 0 || index >= box.sizes[d]) return std::nullopt;
    run.place += index * stride;
    if (is_contiguous) {
      inner += index * stride;
      run.count = box.sizes[d] * stride - inner;
      is_contiguous = box.sizes[d] == shape[d];
    }
    stride *= box.sizes[d];
  }
  return run;
}

}  // namespace

// Fills a checkpoint that nobody else sees yet.
class Checkpoint::Opener {
 public:
  Opener(Checkpoint& checkpoint, const CheckpointOptions& options) : checkpoint_(checkpoint), options_(options) {}

  absl::Status Open(const std::string& path) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) return OpenFile(path);
    const bool has_index = std::filesystem::exists(std::filesystem::path(path) / kIndexName, error) || error;
    if (has_index && options_.ranks == 0) return OpenIndexed(path);
    absl::StatusOr<std::vector<std::string>> paths = ListFiles(path);
    if (!paths.ok()) return paths.status();
    const auto others = std::stable_partition(
        paths->begin(), paths->end(), [](const std::string& file) { return DcpRankOf(NameOf(file)).has_value(); });
    if (options_.ranks > 0 && others == paths->begin()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Printable(path), ": has no shards of torch.distributed.checkpoint (shard-00001-model-...)"));
    }
    if (others != paths->begin() && (others == paths->end() || options_.ranks > 0)) {
      paths->erase(others, paths->end());
      return OpenShards(path, *paths);
    }
    if (paths->size() == 1) return OpenFile(paths->front());
    return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": expected ", kIndexName,
                                                   " or exactly one *.safetensors file, got ", paths->size(),
                                                   " such files and no index"));
  }

 private:
  absl::Status OpenFile(const std::string& path) {
    const auto file = SafetensorsFile::Open(path, options_.excluded);
    if (!file.ok()) return file.status();
    if (absl::Status status = RefuseShards(**file, false); !status.ok()) return status;
    checkpoint_.files_.push_back(*file);
    for (size_t i = 0; i < (*file)->tensors().size(); ++i) AddWhole(i);
    return absl::OkStatus();
  }

  absl::Status OpenIndexed(const std::filesystem::path& folder) {
    absl::StatusOr<FileMap> map = ReadIndex(folder / kIndexName);
    if (!map.ok()) return map.status();
    for (const auto& [name, tensors] : *map) {
      const bool is_needed = !std::all_of(tensors.begin(), tensors.end(), [&](const std::string& tensor) {
        return Matches(options_.excluded, tensor);
      });
      if (!is_needed) continue;
      if (absl::Status status = AddIndexed(folder / name, tensors); !status.ok()) return status;
    }
    if (unnamed_ > 0) {
      checkpoint_.note_ =
          absl::StrCat(Printable(folder.string()), ": ", unnamed_, unnamed_ == 1 ? " tensor" : " tensors",
                       " of its files left out, which ", kIndexName, " does not name");
    }
    return absl::OkStatus();
  }

  // The tensors of a file that the index names.
  absl::Status AddIndexed(const std::string& path, const std::set<std::string>& named) {
    const auto is_named = [&](absl::string_view name) { return named.count(std::string(name)) > 0; };
    const auto is_excluded = [&](absl::string_view name) { return Matches(options_.excluded, name); };
    const auto opened =
        SafetensorsFile::Open(path, [&](absl::string_view name) { return !is_named(name) || is_excluded(name); });
    if (!opened.ok()) return opened.status();
    const SafetensorsFile& file = **opened;
    if (absl::Status status = RefuseShards(file, true); !status.ok()) return status;
    checkpoint_.files_.push_back(*opened);
    std::set<absl::string_view> missing(named.begin(), named.end());
    for (size_t i = 0; i < file.tensors().size(); ++i) {
      const std::string& name = file.tensors()[i].name;
      missing.erase(name);
      if (is_named(name)) {
        AddWhole(i);
      } else if (!is_excluded(name)) {
        ++unnamed_;
      }
    }
    for (const std::string& name : file.left_out()) unnamed_ += is_named(name) || is_excluded(name) ? 0 : 1;
    for (const absl::string_view name : missing) {
      if (is_excluded(name)) continue;
      return InFile(file, absl::StrCat("tensor ", Quoted(name), " is missing, which ", kIndexName, " expects there"));
    }
    return absl::OkStatus();
  }

  // A tensor of the last file.
  void AddWhole(size_t index) {
    const size_t file = checkpoint_.files_.size() - 1;
    const TensorSpec& spec = checkpoint_.files_[file]->tensors()[index];
    checkpoint_.tensors_.push_back(spec);
    checkpoint_.pieces_.push_back({{file, index, WholeBox(spec.shape)}});
  }

  absl::Status OpenShards(const std::string& folder, const std::vector<std::string>& paths) {
    std::set<uint64_t> ranks;
    for (const std::string& path : paths) {
      checkpoint_.ranks_.push_back(*DcpRankOf(NameOf(path)));
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

  absl::Status AddShards(const std::string& path) {
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

  // Tensor `index` of the last file, which begins there in the whole one. That is as large as its shards reach.
  absl::Status AddShard(size_t index, const Shape& begin) {
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
    // A rank that has nothing of it says so, or is silent.
    if (ElementCount(box) > 0) checkpoint_.pieces_[place->second].push_back({file, index, std::move(box)});
    return absl::OkStatus();
  }

  absl::Status CheckWhole(size_t index) const {
    const TensorSpec& whole = checkpoint_.tensors_[index];
    if (absl::Status status = Validate(whole); !status.ok()) return status;
    const std::vector<Piece>& pieces = checkpoint_.pieces_[index];
    std::vector<Box> boxes;
    for (const Piece& piece : pieces) boxes.push_back(piece.box);
    const std::optional<TilingError> error = CheckTiling(whole.shape, boxes);
    if (!error.has_value()) return absl::OkStatus();
    const std::string tensor = absl::StrCat("tensor ", whole.ToString(), ": ");
    if (error->missing.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(tensor, "no shard has ", ToString(*error->missing)));
    }
    const auto describe = [&](size_t piece) {
      return absl::StrCat(ToString(pieces[piece].box), " of ", NameOf(checkpoint_.files_[pieces[piece].file]->path()));
    };
    return absl::InvalidArgumentError(absl::StrCat(tensor, "shards overlap: ", describe(error->overlap->first), " and ",
                                                   describe(error->overlap->second)));
  }

  Checkpoint& checkpoint_;
  const CheckpointOptions& options_;
  std::map<std::string, size_t> places_;  // of tensors in shards, among the checkpoint's
  std::set<std::string> broken_;          // excluded ones that do not fit
  size_t unnamed_ = 0;                    // tensors that the index does not name
};

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& path,
                                                                   const CheckpointOptions& options) try {
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint());
  if (absl::Status status = Opener(*checkpoint, options).Open(path); !status.ok()) return status;
  return checkpoint;
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat(Printable(path), ": no memory to read it"));
}

absl::Span<const std::byte> Checkpoint::data(size_t index) const {
  const Piece& only = pieces_[index].front();
  return files_[only.file]->data(only.index);
}

absl::Span<const std::byte> Checkpoint::Read(size_t index, uint64_t offset, uint64_t size,
                                             absl::Span<std::byte> scratch) const {
  if (is_mapped_) return data(index).subspan(offset, size);
  const TensorSpec& whole = tensors_[index];
  const std::vector<Piece>& pieces = pieces_[index];
  const uint64_t element = ElementSize(whole.dtype);
  MemoryProbe probe;
  size_t at = 0;
  for (uint64_t done = 0; done < size;) {
    std::optional<Run> run;
    while (!(run = RunFrom(whole.shape, pieces[at].box, static_cast<int64_t>((offset + done) / element)))) {
      at = (at + 1) % pieces.size();
    }
    const absl::Span<const std::byte> shard = files_[pieces[at].file]->data(pieces[at].index);
    const uint64_t bytes = std::min(size - done, static_cast<uint64_t>(run->count) * element);
    const absl::Span<const std::byte> next = shard.subspan(static_cast<uint64_t>(run->place) * element, bytes);
    if (!probe.CheckReadable(next).ok()) return {};
    std::memcpy(scratch.data() + done, next.data(), bytes);
    done += bytes;
  }
  return scratch.first(size);
}

std::optional<uint64_t> Checkpoint::RankOfFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error) ? std::nullopt : DcpRankOf(NameOf(path));
}

std::vector<TensorPart> Checkpoint::PartsOfRank(uint64_t rank) const {
  std::vector<TensorPart> parts;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Shape nothing(tensors_[i].shape.size(), 0);
    Box box{nothing, nothing};
    for (const Piece& piece : pieces_[i]) {
      if (ranks_[piece.file] == rank) box = piece.box;
    }
    parts.push_back({tensors_[i], std::move(box)});
  }
  return parts;
}

}  // namespace refit
