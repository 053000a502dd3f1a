// Writes the seeds of the fuzz targets: small, valid inputs from which changes lead to interesting ones.
//
//   refit_make_corpus FOLDER      FOLDER/<target>/seed-<name>; what else is in there stays
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/delta/delta_encoder.h"
#include "common/net/messages.h"
#include "common/wire/chunk_codec.h"
#include "common/wire/digest.h"
#include "refit/v1/inspect.pb.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/push.pb.h"
#include "tests/fuzz/family_seeds.h"

namespace refit {
namespace {

using Seeds = std::vector<std::pair<std::string, std::string>>;  // name, bytes

std::string Byte(int value) { return std::string(1, static_cast<char>(value)); }

// Repeats some bytes that are not all alike.
std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 37 + 11);
  return bytes;
}

std::string ChunkMessage(uint64_t tensor, uint64_t offset, const std::string& payload, bool ends) {
  ChunkHeader header;
  header.tensor = tensor;
  header.offset = offset;
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(payload.data()), payload.size());
  header.digest = DigestBytes(bytes);
  if (ends) header.tensor_digest = DigestTensor(bytes, 4096);
  return EncodeChunkPrefix(header, payload.size()) + payload;
}

Seeds ChunkCodec() {
  v1::PushRequest other_order;
  other_order.mutable_chunk()->set_payload("payload");
  std::string reversed = ChunkMessage(1, 2, "x", true);
  return {{"whole", Byte(0) + ChunkMessage(3, 0, Pattern(40), true)},
          {"sliced", Byte(3) + Byte(1) + Byte(2) + Byte(9) + ChunkMessage(300, 1 << 20, Pattern(200), false)},
          {"empty", Byte(1) + Byte(4) + ChunkMessage(0, 0, "", true)},
          {"generated", Byte(0) + other_order.SerializeAsString()},
          {"unknown_field", Byte(0) + reversed + std::string("\xa0\x06\x01", 3)},
          {"cut_short", Byte(0) + reversed.substr(0, reversed.size() - 4)},
          {"long_varint", Byte(0) + std::string("\x0a\x85\x80\x00\x08\x81\x00\x7a\x00", 9)},
          {"no_chunk", Byte(0) + std::string("\x22\x00", 2)}};
}

Seeds Safetensors() {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},"empty":{"dtype":"U8","shape":[0,4],"data_offsets":[16,16]}})";
  std::string file;
  for (int shift = 0; shift < 64; shift += 8) file.push_back(static_cast<char>(uint64_t{header.size()} >> shift));
  const std::string shards =
      R"({"a":{"shape":[4,3],"offsets":[2,0]},"b":{"shape":[]},"none":{"shape":[2,2],"offsets":[0,0],"dtype":"F32"}})";
  std::string quoted;
  for (const char c : shards) quoted += c == '"' ? std::string("\\\"") : std::string(1, c);
  return {
      {"file", Byte(0) + file + header + Pattern(16)},
      {"header", Byte(1) + Byte(16) + header},
      {"no_tensors", Byte(1) + Byte(0) + "{}"},
      {"escapes", Byte(1) + Byte(1) + R"({ "\u00e9\\n" : {"shape":[1],"data_offsets":[0,1],"dtype":"BOOL"} })"},
      {"with_shards", Byte(1) + Byte(16) + R"({"__metadata__":{"refit.shards":")" + quoted +
                          R"("},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                          R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}})"},
      {"index", Byte(2) + R"({"metadata":{"total_size":2},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})"},
      {"index_outside", Byte(2) + R"({"weight_map":{"a":"../a.safetensors"}})"},
      {"shards", Byte(3) + shards}};
}

// Payloads of deltas for elements of each size, and two ranges to encode; see delta_fuzz.cc.
Seeds Delta() {
  Seeds seeds;
  for (int log_size = 0; log_size < 4; ++log_size) {
    const size_t element_size = size_t{1} << log_size;
    for (const size_t distance : {size_t{1}, size_t{9}, size_t{70}}) {
      constexpr size_t kElements = 256;
      std::vector<std::byte> base(kElements * element_size);
      std::vector<std::byte> now = base;
      for (size_t i = 0; i < kElements; i += distance + i % 3) {
        now[i * element_size + i % element_size] = static_cast<std::byte>(i % 5 + 1);
      }
      const auto delta = DeltaEncoder().Encode(base, now, element_size, {.changed = 1});
      const std::string name = std::to_string(element_size) + "_" + std::to_string(distance);
      seeds.emplace_back(name,
                         Byte(log_size) + Byte(0) + Byte(0) + Byte(1) +
                             std::string(reinterpret_cast<const char*>(delta->payload.data()), delta->payload.size()));
    }
    seeds.emplace_back("ranges_" + std::to_string(element_size),
                       Byte(log_size) + Byte(1) + Byte(40) + Pattern(40 * element_size) + Pattern(30 * element_size));
  }
  return seeds;
}

Seeds PythonRegex() {
  Seeds seeds;
  const std::vector<std::pair<std::string, std::string>> patterns = {
      {R"(model\.layers\.\d+\.moe)", "model.layers.17.moe.gate"},
      {R"((?m)^a$|\Z)", "a\n"},
      {R"([^\W\d_]{2,}[]\w-]\s*)", "ab] "},
      {R"((?:a|b)*c{,3}\b)", "ababccc"},
      {R"(\x41\u00e9\U0001F600\07\101)", "A\xc3\xa9"},
      {R"((?P<n>x)(?P=n))", "xx"},
      {R"((?i:lm_head|embed)(?!x))", "lm_head"},
      {R"([\S\D\s\b]$\A\B)", "z"},
      {"((((((a{100}){100}){100}", "aaaa"}};
  for (size_t i = 0; i < patterns.size(); ++i) {
    seeds.emplace_back(std::to_string(i), patterns[i].first + Byte(0) + patterns[i].second);
  }
  return seeds;
}

// Numbers below 256 and bytes mean what the target makes of them in order: any are as good as others.
Seeds Families() {
  const std::map<std::string, std::string> families = FamilySeeds();
  return {families.begin(), families.end()};
}

Seeds Numbers(int kinds) {
  Seeds seeds;
  for (int kind = 0; kind < kinds; ++kind) {
    for (int variant = 0; variant < 4; ++variant) {
      std::string bytes = Byte(kind);
      for (int i = 0; i < 60; ++i) bytes += Byte((i * (variant * 2 + 3) + kind * 7) % (variant == 0 ? 5 : 23));
      seeds.emplace_back(std::to_string(kind) + "_" + std::to_string(variant), bytes);
    }
  }
  return seeds;
}

Seeds Adapters() {
  // An expert tensor: model.language_model.layers.0.moe.experts.gate_and_up_projs, BF16 [2, 3, 4].
  const std::string name = Byte(7) + Byte(0) + Byte(1) + Byte(2) + Byte(3) + Byte(9) + Byte(10) + Byte(18);
  const std::string down = Byte(6) + Byte(0) + Byte(1) + Byte(2) + Byte(4) + Byte(9) + Byte(11);
  const std::string router = Byte(5) + Byte(0) + Byte(2) + Byte(3) + Byte(6) + Byte(7);
  const std::string shape = Byte(1) + Byte(3) + Byte(2) + Byte(3) + Byte(4);
  Seeds seeds = Numbers(4);
  for (int adapter = 0; adapter < 2; ++adapter) {
    for (int cast = 0; cast < 2; ++cast) {
      const std::string options = Byte(1) + Byte(adapter) + (cast == 0 ? Byte(0) : Byte(1) + Byte(1)) + Byte(0);
      seeds.emplace_back("plan_" + std::to_string(adapter) + "_" + std::to_string(cast),
                         absl::StrCat(options, Byte(3), name, Byte(3), shape, down, Byte(3), shape, router, Byte(3),
                                      shape, Pattern(40)));
    }
  }
  seeds.emplace_back("state_dict", Byte(0) + Byte(2) + Byte(3) + Byte(2) + name + Byte(3) + shape + down + Byte(3) +
                                       shape + Byte(0) + Byte(1) + Byte(0) + Byte(1));
  return seeds;
}

Seeds SharedSegment() {
  v1::SharedSegment stranger;
  stranger.set_pid(1);
  stranger.set_fd(3);
  stranger.set_bytes(4096);
  v1::SharedSegment huge;
  huge.set_bytes(~uint64_t{0});
  Seeds seeds = {{"right", Byte(0) + Byte(3)},
                 {"stranger", Byte(0) + Byte(3) + stranger.SerializeAsString()},
                 {"huge", Byte(0) + Byte(3) + huge.SerializeAsString()}};
  for (int file = 0; file < 8; ++file)
    seeds.emplace_back("file_" + std::to_string(file), Byte(1) + Byte(file) + Byte(3));
  return seeds;
}

// Records of the service target; see service_fuzz.cc.
std::string Record(int what, int which, const std::string& message) {
  return Byte(what) + Byte(which) + Byte(static_cast<int>(message.size() & 0xff)) +
         Byte(static_cast<int>(message.size() >> 8)) + message;
}
std::string Push(int stream, const v1::PushRequest& request) { return Record(1, stream, request.SerializeAsString()); }
std::string HangUp(int stream) { return Record(3, stream, ""); }

enum Method {
  kPull,
  kWatch,
  kManifest,
  kEndLease,
  kAbort,
  kInfo,
  kVersions,
  kWorkers,
  kVersion,
  kTensor,
  kReport,
  kRelease,
  kAwait
};
std::string Call(Method method, const google::protobuf::MessageLite& request) {
  return Record(6, method, request.SerializeAsString());
}

std::string Open(int stream, uint64_t version, uint32_t rank = 0, uint32_t world = 1) {
  v1::PushRequest request;
  request.mutable_open()->set_model("m");
  request.mutable_open()->set_version(version);
  request.mutable_open()->set_rank(rank);
  request.mutable_open()->set_world(world);
  if (version % 2 == 0) request.mutable_open()->set_dtype(v1::DTYPE_F32);
  return Push(stream, request);
}

struct Declared {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<int64_t> offsets;  // with `sizes`, the box; both empty: all
  std::vector<int64_t> sizes;
};

std::string Declare(int stream, const std::vector<Declared>& tensors) {
  v1::PushRequest request;
  request.mutable_declare()->set_last(true);
  for (const Declared& declared : tensors) {
    v1::DeclaredTensor& tensor = *request.mutable_declare()->add_tensors();
    tensor.mutable_tensor()->set_name(declared.name);
    tensor.mutable_tensor()->set_dtype(v1::DTYPE_BF16);
    for (const int64_t size : declared.shape) tensor.mutable_tensor()->add_shape(size);
    for (const int64_t offset : declared.offsets) tensor.mutable_box()->add_offsets(offset);
    for (const int64_t size : declared.sizes) tensor.mutable_box()->add_sizes(size);
  }
  return Push(stream, request);
}

std::string SendChunk(int stream, uint64_t tensor, size_t bytes) {
  return Record(1, stream, ChunkMessage(tensor, 0, Pattern(bytes), true));
}

std::string Commit(int stream) {
  v1::PushRequest request;
  request.mutable_commit();
  return Push(stream, request);
}

std::string Batch(int stream) {
  v1::PushRequest request;
  for (uint64_t tensor = 0; tensor < 2; ++tensor) {
    v1::Chunk& chunk = *request.mutable_chunks()->add_chunks();
    chunk.set_tensor(tensor);
    chunk.set_payload(Pattern(tensor == 0 ? 16 : 48));
    chunk.set_tensor_digest(1);
  }
  return Push(stream, request);
}

std::string Looks() {
  v1::PullRequest pull;
  pull.set_batches(true);
  v1::PullRequest parts;
  v1::LayoutRule& rule = *parts.add_rules();
  rule.set_dimension(1);
  rule.set_part(1);
  rule.set_parts(2);
  parts.set_filter("experts");
  v1::PullRequest resumed;
  resumed.mutable_version()->set_number(1);
  resumed.mutable_resume()->set_tensor(1);
  resumed.set_skip_manifest(true);
  resumed.set_shared_memory(true);
  v1::NamedBox& box = *resumed.add_boxes();
  box.set_name("w");
  box.mutable_box()->add_offsets(1);
  box.mutable_box()->add_sizes(2);
  v1::GetManifestRequest manifest;
  manifest.mutable_version()->set_latest(true);
  v1::DescribeVersionRequest version;
  version.set_page_size(1);
  v1::DescribeTensorRequest tensor;
  tensor.set_name("w");
  tensor.set_preview_elements(4);
  return Call(kPull, pull) + Call(kPull, parts) + Call(kPull, resumed) + Call(kManifest, manifest) +
         Call(kVersion, version) + Call(kTensor, tensor) + Call(kVersions, v1::ListVersionsRequest()) +
         Call(kWorkers, v1::ListWorkersRequest()) + Call(kInfo, v1::GetServerInfoRequest()) +
         Call(kWatch, v1::WatchVersionsRequest());
}

// A fleet of one that stages a held version, is let go, and installs it.
std::string Fleet() {
  v1::WatchVersionsRequest watch;
  watch.set_worker("w0");
  v1::ReportWorkerRequest report;
  report.set_worker("w0");
  report.set_version(1);
  report.set_stage_ns(1000);
  report.set_phase(v1::WORKER_PHASE_STAGED);
  v1::ReportWorkerRequest torn = report;
  torn.set_phase(v1::WORKER_PHASE_TORN);
  torn.set_error("cut");
  v1::AwaitWorkersRequest await;
  await.set_version(1);
  await.set_phase(v1::WORKER_PHASE_STAGED);
  await.set_workers(1);
  await.set_timeout_ms(20);
  v1::AwaitWorkersRequest all = await;
  all.set_phase(v1::WORKER_PHASE_INSTALLED);
  all.set_all(true);
  v1::ReleaseInstallsRequest release;
  release.set_version(1);
  std::string calls = Call(kWatch, watch) + Call(kAwait, await) + Call(kReport, report) + Call(kAwait, await) +
                      Call(kRelease, release) + Call(kReport, torn);
  report.set_phase(v1::WORKER_PHASE_INSTALLED);
  return calls + Call(kReport, report) + Call(kAwait, all) + Call(kWorkers, v1::ListWorkersRequest());
}

Seeds Service() {
  const std::string retains = Byte(1);
  const std::string streams = Byte(0);
  const Declared w{"w", {8}, {}, {}};
  const Declared experts{"model.layers.0.moe.experts.down_projs", {2, 3, 4}, {}, {}};
  const std::vector<Declared> both = {w, experts};
  v1::PushRequest abort;
  abort.mutable_abort()->set_reason("enough");
  v1::AbortVersionRequest abort_version;
  abort_version.set_version(1);
  v1::EndLeaseRequest lease;
  lease.set_lease(7);
  v1::PushRequest shared;
  shared.mutable_shared_chunk()->mutable_chunk()->set_tensor(0);
  shared.mutable_shared_chunk()->set_bytes(16);

  const std::string whole = Open(0, 1) + Declare(0, both) + SendChunk(0, 0, 16) + SendChunk(0, 1, 48) + Commit(0);
  const auto half = [](int64_t begin) { return std::vector<Declared>{{"w", {8}, {begin}, {4}}, {"b", {2}, {0}, {2}}}; };
  const std::string sharded = Open(0, 2, 0, 2) + Open(1, 2, 1, 2) + Declare(0, half(0)) + Declare(1, half(4)) +
                              SendChunk(0, 0, 8) + SendChunk(1, 0, 8) + SendChunk(0, 1, 4) + SendChunk(1, 1, 4) +
                              Commit(0) + Commit(1);
  return {
      {"push_and_look", retains + whole + HangUp(0) + Looks()},
      {"streamed",
       streams + Open(0, 1) + Declare(0, both) + SendChunk(0, 0, 16) + Looks() + SendChunk(0, 1, 48) + Commit(0)},
      {"sharded", retains + sharded + HangUp(0) + HangUp(1) + Looks()},
      {"batch", retains + Open(0, 3) + Declare(0, both) + Batch(0) + Commit(0) + HangUp(0) + Looks()},
      {"abort", retains + Open(0, 1) + Declare(0, both) + Push(0, abort) + Call(kAbort, abort_version)},
      {"abort_from_outside", retains + Open(0, 1) + Declare(0, both) + Call(kAbort, abort_version) + HangUp(0)},
      {"shared_chunk", retains + Open(0, 1) + Declare(0, both) + Push(0, shared) + Call(kEndLease, lease)},
      {"two_pushes", retains + Open(0, 1) + Open(1, 1) + Declare(0, both) + Declare(1, both) + Record(4, 0, "")},
      {"only_looks", retains + Looks()},
      {"fleet", retains + whole + HangUp(0) + Fleet()},
      {"garbage", retains + Record(0, 0, Pattern(50)) + Record(5, kPull, Pattern(30)) + Record(5, kVersion, "\xff")}};
}

bool Write(const std::filesystem::path& folder, const Seeds& seeds) {
  std::filesystem::create_directories(folder);
  for (const auto& [name, bytes] : seeds) {
    std::ofstream file(folder / ("seed-" + name), std::ios::binary);
    file << bytes;
    if (!file.flush()) return false;
  }
  return true;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " FOLDER\n";
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  const std::vector<std::pair<std::string, refit::Seeds>> targets = {
      {"adapters", refit::Adapters()},           {"box", refit::Numbers(3)},
      {"chunk_codec", refit::ChunkCodec()},      {"delta", refit::Delta()},
      {"families", refit::Families()},           {"python_regex", refit::PythonRegex()},
      {"safetensors", refit::Safetensors()},     {"service", refit::Service()},
      {"shared_segment", refit::SharedSegment()}};
  for (const auto& [target, seeds] : targets) {
    if (!refit::Write(folder / target, seeds)) {
      std::cerr << "cannot write to " << folder << "\n";
      return 1;
    }
  }
  return 0;
}
