#include "refit/subscriber.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>

#include "common/net/messages.h"
#include "common/wire/digest.h"
#include "tests/unit/client/scripted_pull.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using Messages = std::vector<v1::PullResponse>;

constexpr uint64_t kChunkBytes = 64;

// A small version, and the messages that a good service sends of it.
class TestVersion {
 public:
  TestVersion() {
    specs_ = {{"a.weight", DType::kBF16, {7, 13}},
              {"empty", DType::kF32, {0, 3}},
              {"scalar", DType::kF32, {}},
              {"exact", DType::kU8, {128}},
              {"last", DType::kI64, {9}}};
    for (const TensorSpec& spec : specs_) {
      std::string bytes(spec.ByteSize(), '\0');
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(spec.name[0] + 7 * i);
      data_.push_back(bytes);
    }
  }

  const std::vector<TensorSpec>& specs() const { return specs_; }
  const std::string& data(size_t index) const { return data_[index]; }

  TensorPart Part(size_t index, Box box) const { return {specs_[index], std::move(box)}; }

  // The bytes of a part, element by element.
  std::string DataOf(const TensorPart& part) const {
    const size_t element = ElementSize(part.tensor.dtype);
    const std::string& whole = data_[IndexOf(part)];
    std::string bytes;
    BoxRuns(part.tensor.shape, part.box).ForEach(0, ElementCount(part.box), [&](int64_t place, int64_t count) {
      bytes += whole.substr(place * element, count * element);
    });
    return bytes;
  }

  v1::VersionSummary Summary(v1::VersionState state) const {
    v1::VersionSummary summary;
    summary.set_model("default");
    summary.set_version(3);
    summary.set_state(state);
    summary.set_tensors(specs_.size());
    for (const std::string& bytes : data_) summary.set_bytes(summary.bytes() + bytes.size());
    summary.set_chunk_bytes(kChunkBytes);
    if (state == v1::VERSION_STATE_COMMITTED) summary.set_manifest_digest(ManifestDigest());
    return summary;
  }

  // With the tensors of `selected` only, in chunks of `chunk_bytes`.
  Messages Stream(const std::vector<size_t>& selected = {0, 1, 2, 3, 4}, uint64_t chunk_bytes = kChunkBytes) const {
    std::vector<TensorPart> parts;
    parts.reserve(selected.size());
    for (const size_t index : selected) parts.push_back(TensorPart::Whole(specs_[index]));
    return StreamParts(parts, chunk_bytes);
  }

  Messages StreamParts(const std::vector<TensorPart>& parts, uint64_t chunk_bytes = kChunkBytes) const {
    Messages messages;
    *messages.emplace_back().mutable_header() = Summary(v1::VERSION_STATE_OPEN);
    AddManifest(parts, messages);
    for (size_t i = 0; i < parts.size(); ++i) AddChunks(i, DataOf(parts[i]), chunk_bytes, messages);
    v1::PullCommitted& committed = *messages.emplace_back().mutable_committed();
    *committed.mutable_summary() = Summary(v1::VERSION_STATE_COMMITTED);
    ManifestDigester digester;
    for (const TensorPart& part : parts) digester.Add(part, DigestTensor(Bytes(DataOf(part)), kChunkBytes));
    committed.set_selection_digest(digester.Finish());
    return messages;
  }

 private:
  static absl::Span<const std::byte> Bytes(const std::string& bytes) {
    return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
  }

  size_t IndexOf(const TensorPart& part) const {
    return std::find(specs_.begin(), specs_.end(), part.tensor) - specs_.begin();
  }

  uint64_t ManifestDigest() const {
    ManifestDigester digester;
    for (size_t i = 0; i < specs_.size(); ++i) digester.Add(specs_[i], DigestTensor(Bytes(data_[i]), kChunkBytes));
    return digester.Finish();
  }

  // In two parts.
  void AddManifest(const std::vector<TensorPart>& parts, Messages& messages) const {
    const size_t half = parts.size() / 2;
    messages.emplace_back().mutable_manifest();
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i == half) messages.emplace_back().mutable_manifest()->set_first(i);
      v1::ManifestEntry& entry = *messages.back().mutable_manifest()->add_entries();
      ToProto(parts[i].tensor, *entry.mutable_tensor());
      entry.set_bytes(parts[i].ByteSize());
      if (!parts[i].is_whole()) ToProto(parts[i].box, *entry.mutable_box());
    }
    messages.back().mutable_manifest()->set_last(true);
  }

  static void AddChunks(size_t index, const std::string& bytes, uint64_t chunk_bytes, Messages& messages) {
    uint64_t offset = 0;
    do {
      v1::Chunk& chunk = *messages.emplace_back().mutable_chunk();
      chunk.set_tensor(index);
      chunk.set_offset(offset);
      chunk.set_payload(bytes.substr(offset, chunk_bytes));
      chunk.set_digest(DigestBytes(Bytes(chunk.payload())));
      offset += chunk.payload().size();
    } while (offset < bytes.size());
    messages.back().mutable_chunk()->set_tensor_digest(DigestTensor(Bytes(bytes), kChunkBytes));
  }

  std::vector<TensorSpec> specs_;
  std::vector<std::string> data_;
};

std::vector<grpc::ByteBuffer> Encode(const Messages& messages) {
  std::vector<grpc::ByteBuffer> encoded;
  for (const v1::PullResponse& message : messages) encoded.push_back(Serialize(message));
  return encoded;
}

grpc::ByteBuffer Raw(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// Remembers what it was told; fails where told to.
class RecordingSink final : public TensorSink {
 public:
  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& parts) override {
    log += "begin " + std::to_string(version.version) + " " + std::to_string(parts.size()) + ";";
    for (const TensorPart& part : parts) data.emplace_back(part.ByteSize() + extra_bytes);
    return on_begin;
  }
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    log += "place " + std::to_string(index) + ";";
    if (!on_place.ok()) return on_place;
    return absl::MakeSpan(data[index]);
  }
  absl::Status Done(size_t index) override {
    log += "done " + std::to_string(index) + ";";
    return on_done;
  }
  void Progress(uint64_t bytes) override { received += bytes; }

  std::string log;
  uint64_t received = 0;
  std::vector<std::vector<std::byte>> data;
  absl::Status on_begin;
  absl::Status on_place;
  absl::Status on_done;
  size_t extra_bytes = 0;
};

class SubscriberTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto subscriber = Subscriber::Connect(server_.channel_options());
    ASSERT_TRUE(subscriber.ok()) << subscriber.status();
    subscriber_ = *std::move(subscriber);
  }

  void Say(const Messages& messages, const grpc::Status& status = grpc::Status::OK) {
    service_.Say({Encode(messages), status});
  }

  absl::StatusOr<PulledVersion> Pull(const PullOptions& options = {}) { return subscriber_->Pull(options); }

  void ExpectPulled(const absl::StatusOr<PulledVersion>& pulled, const std::vector<size_t>& selected) {
    ASSERT_TRUE(pulled.ok()) << pulled.status();
    ASSERT_EQ(pulled->tensors.size(), selected.size());
    uint64_t bytes = 0;
    for (size_t i = 0; i < selected.size(); ++i) {
      const PulledTensor& tensor = pulled->tensors[i];
      EXPECT_EQ(tensor.part, TensorPart::Whole(version_.specs()[selected[i]]));
      const std::string data(reinterpret_cast<const char*>(tensor.data->data()), tensor.data->size());
      EXPECT_EQ(data, version_.data(selected[i])) << tensor.part.ToString();
      bytes += data.size();
    }
    EXPECT_EQ(pulled->result.bytes, bytes);
    EXPECT_EQ(pulled->result.tensors, selected.size());
    EXPECT_EQ(pulled->result.version.version, 3u);
    EXPECT_EQ(pulled->result.version.state, VersionState::kCommitted);
  }

  const TestVersion version_;
  ScriptedPull service_;
  LoopbackServer server_{{&service_}};
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(SubscriberTest, PullsAVersion) {
  Say(version_.Stream());
  for (int round = 0; round < 3; ++round) ExpectPulled(Pull(), {0, 1, 2, 3, 4});
}

TEST_F(SubscriberTest, ChunksMayHaveOtherSizes) {
  for (const uint64_t chunk_bytes : {8, 40, 100, 1000}) {
    Say(version_.Stream({0, 1, 2, 3, 4}, chunk_bytes));
    ExpectPulled(Pull(), {0, 1, 2, 3, 4});
  }
}

TEST_F(SubscriberTest, PullsASelection) {
  Say(version_.Stream({0, 3}));
  ExpectPulled(Pull({.filter = "a"}), {0, 3});
  ExpectPulled(Pull({.names = {"a.weight", "exact"}}), {0, 3});
  Say(version_.Stream({}));
  ExpectPulled(Pull({.filter = "nothing"}), {});
}

TEST_F(SubscriberTest, WaitingMessagesMayComeAnywhere) {
  Messages messages;
  for (const v1::PullResponse& message : version_.Stream()) {
    messages.push_back(message);
    messages.emplace_back().mutable_waiting();
  }
  Say(messages);
  ExpectPulled(Pull(), {0, 1, 2, 3, 4});
}

TEST_F(SubscriberTest, ChunksOfAnotherEncoderAreUnderstood) {
  std::vector<grpc::ByteBuffer> encoded;
  for (const v1::PullResponse& message : version_.Stream()) {
    if (!message.has_chunk()) {
      encoded.push_back(Serialize(message));
      continue;
    }
    v1::Chunk payload;
    payload.set_payload(message.chunk().payload());
    v1::Chunk rest = message.chunk();
    rest.clear_payload();
    const std::string chunk = payload.SerializeAsString() + rest.SerializeAsString();
    ASSERT_LT(chunk.size(), 128u);
    encoded.push_back(Raw("\x0a" + std::string(1, static_cast<char>(chunk.size())) + chunk));
  }
  service_.Say({encoded});
  ExpectPulled(Pull(), {0, 1, 2, 3, 4});
}

TEST_F(SubscriberTest, TheSinkIsToldInOrder) {
  Say(version_.Stream());
  RecordingSink sink;
  const auto result = subscriber_->Pull({}, sink);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(sink.log, "begin 3 5;place 0;done 0;place 1;done 1;place 2;done 2;place 3;done 3;place 4;done 4;");
  EXPECT_EQ(sink.received, result->bytes);
  EXPECT_GE(result->elapsed, result->waited);
  EXPECT_GT(result->waited.count(), 0);
}

TEST_F(SubscriberTest, TheSinkEndsAPull) {
  Say(version_.Stream());
  const absl::Status full = absl::ResourceExhaustedError("no room");
  for (absl::Status RecordingSink::*failing :
       {&RecordingSink::on_begin, &RecordingSink::on_place, &RecordingSink::on_done}) {
    RecordingSink sink;
    sink.*failing = full;
    EXPECT_EQ(subscriber_->Pull({}, sink).status(), full);
  }
  RecordingSink sink;
  sink.extra_bytes = 1;
  const absl::Status status = subscriber_->Pull({}, sink).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("183 bytes for tensor a.weight"), std::string::npos) << status;
}

TEST_F(SubscriberTest, TheRequestSaysWhatWasAskedFor) {
  Say({}, grpc::Status(grpc::StatusCode::NOT_FOUND, "none"));
  EXPECT_FALSE(Pull({.model = "m", .version = 9, .filter = "rx", .names = {"a", "b"}, .worker = "w"}).ok());
  v1::PullRequest request;
  ASSERT_TRUE(Parse(service_.request(), request).ok());
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.version().number(), 9u);
  EXPECT_EQ(request.filter(), "rx");
  EXPECT_EQ(request.names_size(), 2);
  EXPECT_EQ(request.worker(), "w");
  EXPECT_FALSE(Pull().ok());
  ASSERT_TRUE(Parse(service_.request(), request).ok());
  EXPECT_TRUE(request.version().latest_committed());
  EXPECT_EQ(request.rules_size() + request.boxes_size(), 0);
}

TEST_F(SubscriberTest, TheRequestSaysWhichPartsWereAskedFor) {
  Say({}, grpc::Status(grpc::StatusCode::NOT_FOUND, "none"));
  PullOptions options;
  options.rules = {{LayoutRule::Scope::kExperts, "gate", 1, 3, 8, Split::kCeil}, {.part = 1, .parts = 2}};
  options.boxes = {{"a", {{1, 2}, {3, 4}}}, {"scalar", {}}};
  EXPECT_FALSE(Pull(options).ok());
  v1::PullRequest request;
  ASSERT_TRUE(Parse(service_.request(), request).ok());
  ASSERT_EQ(request.rules_size(), 2);
  EXPECT_EQ(FromProto(request.rules(0))->ToString(), options.rules[0].ToString());
  EXPECT_EQ(request.rules(0).split(), v1::SPLIT_CEIL);
  EXPECT_EQ(FromProto(request.rules(1))->ToString(), options.rules[1].ToString());
  EXPECT_EQ(request.rules(1).split(), v1::SPLIT_BALANCED);
  ASSERT_EQ(request.boxes_size(), 2);
  EXPECT_EQ(request.boxes(0).name(), "a");
  EXPECT_EQ(FromProto(request.boxes(0).box()), options.boxes[0].second);
  EXPECT_EQ(request.boxes(1).name(), "scalar");
  EXPECT_TRUE(request.boxes(1).has_box());
}

TEST_F(SubscriberTest, TheServicesStatusComesThrough) {
  Messages messages = version_.Stream();
  messages.resize(5);
  Say(messages, grpc::Status(grpc::StatusCode::ABORTED, "its trainer died"));
  const absl::Status status = Pull({.version = 3}).status();
  EXPECT_EQ(status, absl::AbortedError("pull of default/3 from " + server_.address() + ": its trainer died"));
}

// Also after everything has come: only an OK status makes a pull OK.
TEST_F(SubscriberTest, AnErrorAfterTheCommitMarkerCounts) {
  Say(version_.Stream(), grpc::Status(grpc::StatusCode::UNKNOWN, "crash"));
  EXPECT_EQ(Pull().status().code(), absl::StatusCode::kUnknown);
}

struct Breach {
  const char* what;
  std::function<void(Messages&)> make;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const Breach& breach, std::ostream* out) { *out << breach.what; }

// Messages 0 header, 1-2 manifest, 3-5 a.weight (182 bytes), 6 empty, 7 scalar, 8-9 exact, 10-11 last, 12 committed.
constexpr absl::StatusCode kInternal = absl::StatusCode::kInternal;
constexpr absl::StatusCode kDataLoss = absl::StatusCode::kDataLoss;
const Breach kBreaches[] = {
    {"damaged payload", [](Messages& m) { (*m[4].mutable_chunk()->mutable_payload())[5] ^= 1; }, kDataLoss,
     "tensor a.weight BF16 [7, 13], chunk at offset 64: its digest is"},
    {"wrong chunk digest", [](Messages& m) { m[3].mutable_chunk()->set_digest(1); }, kDataLoss, "0000000000000001"},
    {"wrong tensor digest", [](Messages& m) { m[5].mutable_chunk()->set_tensor_digest(2); }, kDataLoss,
     "tensor a.weight BF16 [7, 13]: its digest is 0000000000000002"},
    {"wrong digest of an empty tensor", [](Messages& m) { m[6].mutable_chunk()->set_tensor_digest(2); }, kDataLoss,
     "tensor empty"},
    {"wrong manifest digest", [](Messages& m) { m[12].mutable_committed()->mutable_summary()->set_manifest_digest(3); },
     kDataLoss, "the manifest"},
    {"wrong selection digest", [](Messages& m) { m[12].mutable_committed()->set_selection_digest(3); }, kDataLoss,
     "tensors selected"},
    {"a gap", [](Messages& m) { m.erase(m.begin() + 4); }, kInternal,
     "tensor number 0 at offset 128; expected number 0 (a.weight BF16 [7, 13]) at offset 64"},
    {"an overlap", [](Messages& m) { m.insert(m.begin() + 4, m[3]); }, kInternal, "at offset 0; expected number 0"},
    {"a tensor left out", [](Messages& m) { m.erase(m.begin() + 7); }, kInternal, "expected number 2 (scalar F32 [])"},
    {"tensors swapped", [](Messages& m) { std::swap(m[6], m[7]); }, kInternal, "expected number 1"},
    {"beyond the tensor", [](Messages& m) { m[9].mutable_chunk()->mutable_payload()->append("x"); }, kInternal,
     "65 bytes, but the tensor lacks 64"},
    {"an offset that would wrap around", [](Messages& m) { m[9].mutable_chunk()->set_offset(UINT64_MAX - 10); },
     kInternal, "expected number 3"},
    {"an empty chunk", [](Messages& m) { m[4].mutable_chunk()->clear_payload(); }, kInternal, "it is empty"},
    {"an unknown encoding", [](Messages& m) { m[4].mutable_chunk()->set_encoding(static_cast<v1::ChunkEncoding>(5)); },
     kInternal, "encoding 5"},
    {"a delta without a base", [](Messages& m) { m[4].mutable_chunk()->set_encoding(v1::CHUNK_ENCODING_DELTA); },
     kInternal, "chunk at offset 64: a delta, but the header has no base"},
    {"a decoded size", [](Messages& m) { m[4].mutable_chunk()->set_decoded_bytes(100); }, kInternal, "of 100 bytes"},
    {"no tensor digest", [](Messages& m) { m[5].mutable_chunk()->clear_tensor_digest(); }, kInternal,
     "without a tensor digest"},
    {"an early tensor digest", [](Messages& m) { m[4].mutable_chunk()->set_tensor_digest(1); }, kInternal,
     "does not end the tensor"},
    {"a chunk too many", [](Messages& m) { m.insert(m.begin() + 12, m[11]); }, kInternal, "after the last tensor"},
    {"a chunk after the commit marker", [](Messages& m) { m.push_back(m[11]); }, kInternal, "a chunk out of place"},
    {"a chunk before the manifest's end", [](Messages& m) { m.erase(m.begin() + 2); }, kInternal,
     "a chunk out of place"},
    {"no commit marker", [](Messages& m) { m.pop_back(); }, kInternal, "after 5 of 5 tensors"},
    {"cut within a tensor", [](Messages& m) { m.resize(4); }, kInternal, "after 0 of 5 tensors"},
    {"nothing at all", [](Messages& m) { m.clear(); }, kInternal, "without the commit marker"},
    {"an early commit marker", [](Messages& m) { m.erase(m.begin() + 11); }, kInternal,
     "while tensor last I64 [9] stands at 64 bytes"},
    {"a second commit marker", [](Messages& m) { m.push_back(m[12]); }, kInternal, "out of place"},
    {"committed without a manifest digest",
     [](Messages& m) { m[12].mutable_committed()->mutable_summary()->clear_manifest_digest(); }, kInternal,
     "without manifest digest"},
    {"committed, but open",
     [](Messages& m) { m[12].mutable_committed()->mutable_summary()->set_state(v1::VERSION_STATE_OPEN); }, kInternal,
     "VERSION_STATE_OPEN"},
    {"committed, but another version",
     [](Messages& m) { m[12].mutable_committed()->mutable_summary()->set_version(4); }, kInternal, "default/4"},
    {"no header", [](Messages& m) { m.erase(m.begin()); }, kInternal, "a manifest out of place"},
    {"a second header", [](Messages& m) { m.insert(m.begin() + 1, m[0]); }, kInternal, "a second header"},
    {"another version", [](Messages& m) { m[0].mutable_header()->set_version(4); }, kInternal, "version default/4"},
    {"another model", [](Messages& m) { m[0].mutable_header()->set_model("x"); }, kInternal, "version x/3"},
    {"chunks of no size", [](Messages& m) { m[0].mutable_header()->set_chunk_bytes(0); }, kInternal, "chunk_bytes 0"},
    {"a base", [](Messages& m) { m[0].mutable_header()->set_base_version(2); }, kInternal, "a base that was not named"},
    {"another layout", [](Messages& m) { m[0].mutable_header()->set_layout(static_cast<v1::Layout>(7)); }, kInternal,
     "layout 7"},
    {"a part of the manifest twice", [](Messages& m) { m.insert(m.begin() + 1, m[1]); }, kInternal,
     "from entry 0 on; expected 2"},
    {"a part of the manifest left out", [](Messages& m) { m.erase(m.begin() + 1); }, kInternal,
     "from entry 2 on; expected 0"},
    {"more manifest after its last part", [](Messages& m) { m.insert(m.begin() + 3, m[2]); }, kInternal,
     "a manifest out of place"},
    {"fewer tensors than the header has", [](Messages& m) { m[0].mutable_header()->set_tensors(6); }, kInternal,
     "its header says 6"},
    {"more tensors than the header has", [](Messages& m) { m[0].mutable_header()->set_tensors(4); }, kInternal,
     "more than the header's 4 tensors"},
    {"fewer bytes than the header has", [](Messages& m) { m[0].mutable_header()->set_bytes(1 << 20); }, kInternal,
     "its header says 5 of 1048576"},
    {"more bytes than the header has", [](Messages& m) { m[0].mutable_header()->set_bytes(200); }, kInternal,
     "more than the header's"},
    {"an entry of another size", [](Messages& m) { m[1].mutable_manifest()->mutable_entries(0)->set_bytes(180); },
     kInternal, "180 bytes; expected 182"},
    {"a name twice",
     [](Messages& m) { m[1].mutable_manifest()->mutable_entries(1)->mutable_tensor()->set_name("a.weight"); },
     kInternal, "tensor a.weight twice"},
    {"an unknown dtype",
     [](Messages& m) {
       m[1].mutable_manifest()->mutable_entries(0)->mutable_tensor()->set_dtype(static_cast<v1::DType>(99));
     },
     kInternal, "a.weight"},
    {"a negative dimension",
     [](Messages& m) { m[1].mutable_manifest()->mutable_entries(0)->mutable_tensor()->set_shape(0, -7); }, kInternal,
     "a.weight"},
    {"a shape that overflows",
     [](Messages& m) { m[1].mutable_manifest()->mutable_entries(0)->mutable_tensor()->set_shape(0, INT64_MAX); },
     kInternal, "a.weight"},
    {"a part of a tensor",
     [](Messages& m) { m[1].mutable_manifest()->mutable_entries(0)->mutable_box()->add_sizes(1); }, kInternal,
     "a part of tensor a.weight BF16 [7, 13] only"},
    {"a box that is the whole",
     [](Messages& m) {
       ToProto(WholeBox({7, 13}), *m[1].mutable_manifest()->mutable_entries(0)->mutable_box());
     },
     kInternal, "a part of tensor a.weight"},
    {"a message without content", [](Messages& m) { m.insert(m.begin() + 5, v1::PullResponse()); }, kInternal,
     "no known kind"},
};

class SubscriberBreachTest : public SubscriberTest, public ::testing::WithParamInterface<Breach> {};

TEST_P(SubscriberBreachTest, IsRefusedAndExplained) {
  Messages messages = version_.Stream();
  ASSERT_EQ(messages.size(), 13u);
  GetParam().make(messages);
  Say(messages);
  const absl::Status status = Pull({.version = 3}).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_NE(status.message().find(GetParam().message), std::string::npos) << status;
  EXPECT_EQ(status.message().find("pull of default/3 from 127.0.0.1:"), 0u) << status;

  Say(version_.Stream());
  ExpectPulled(Pull(), {0, 1, 2, 3, 4});  // nothing is left of it
}

// Attacks by the names of The Update Framework; tests/integration/worker_test.cc has the others.

TEST_F(SubscriberTest, EndlessDataEndsWithTheManifest) {
  Messages messages = version_.Stream();
  messages.pop_back();
  const v1::PullResponse more = messages.back();
  for (int i = 0; i < 1000; ++i) messages.push_back(more);
  Say(messages);
  RecordingSink sink;
  const absl::Status status = subscriber_->Pull({}, sink).status();
  EXPECT_EQ(status.code(), kInternal);
  EXPECT_NE(status.message().find("a chunk after the last tensor's end"), std::string::npos) << status;
  uint64_t bytes = 0;
  for (size_t i = 0; i < version_.specs().size(); ++i) bytes += version_.data(i).size();
  EXPECT_EQ(sink.received, bytes);
}

// Each tensor is right in itself, but one is of another version.
TEST_F(SubscriberTest, MixAndMatchIsNoVersion) {
  Messages messages = version_.Stream();
  std::string other;
  for (const size_t i : {10, 11}) {
    v1::Chunk& chunk = *messages[i].mutable_chunk();
    chunk.mutable_payload()->front() ^= 1;
    chunk.set_digest(DigestBytes({reinterpret_cast<const std::byte*>(chunk.payload().data()), chunk.payload().size()}));
    other += chunk.payload();
  }
  messages[11].mutable_chunk()->set_tensor_digest(
      DigestTensor({reinterpret_cast<const std::byte*>(other.data()), other.size()}, kChunkBytes));
  ManifestDigester mixed;
  for (const v1::PullResponse& message : messages) {
    const v1::Chunk& chunk = message.chunk();
    if (chunk.has_tensor_digest()) mixed.Add(version_.specs()[chunk.tensor()], chunk.tensor_digest());
  }
  messages[12].mutable_committed()->set_selection_digest(mixed.Finish());
  Say(messages);
  const absl::Status status = Pull().status();
  EXPECT_EQ(status.code(), kDataLoss);
  EXPECT_NE(status.message().find("the manifest"), std::string::npos) << status;
}

TEST_F(SubscriberTest, AWrongTargetIsRefused) {
  Messages messages = version_.Stream();
  messages[0].mutable_header()->set_model("other");
  Say(messages);
  RecordingSink sink;
  EXPECT_NE(subscriber_->Pull({}, sink).status().message().find("it sends version other/3"), std::string::npos);
  Say(version_.Stream());
  EXPECT_NE(subscriber_->Pull({.version = 4}, sink).status().message().find("it sends version default/3"),
            std::string::npos);
  EXPECT_EQ(sink.log, "");  // not a byte was placed
}

INSTANTIATE_TEST_SUITE_P(All, SubscriberBreachTest, ::testing::ValuesIn(kBreaches));

// Rows 2 to 5 of a, nothing of empty's three columns but one, a quarter of exact, none of last.
class PartPullTest : public SubscriberTest {
 protected:
  // As rules might give them.
  static PullOptions ByRule() {
    PullOptions options;
    options.rules = {{.part = 1, .parts = 4}};
    return options;
  }

  PullOptions ByBox(const std::vector<TensorPart>& parts) const {
    PullOptions options;
    for (const TensorPart& part : parts) options.boxes.emplace_back(part.tensor.name, part.box);
    return options;
  }

  void ExpectParts(const absl::StatusOr<PulledVersion>& pulled, const std::vector<TensorPart>& parts) {
    ASSERT_TRUE(pulled.ok()) << pulled.status();
    ASSERT_EQ(pulled->tensors.size(), parts.size());
    uint64_t bytes = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const PulledTensor& tensor = pulled->tensors[i];
      EXPECT_EQ(tensor.part, parts[i]);
      const std::string data(reinterpret_cast<const char*>(tensor.data->data()), tensor.data->size());
      EXPECT_EQ(data, version_.DataOf(parts[i])) << tensor.part.ToString();
      bytes += data.size();
    }
    EXPECT_EQ(pulled->result.bytes, bytes);
  }

  void ExpectRefused(const PullOptions& options, absl::StatusCode code, const std::string& text) {
    const absl::Status status = Pull(options).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_NE(status.message().find(text), std::string::npos) << status;
    EXPECT_EQ(status.message().find("pull of default/latest from 127.0.0.1:"), 0u) << status;
  }

  v1::ManifestEntry& Entry(Messages& messages) const { return *messages[1].mutable_manifest()->mutable_entries(0); }

  const std::vector<TensorPart> parts_ = {version_.Part(0, {{2, 0}, {3, 13}}), version_.Part(1, {{0, 1}, {0, 1}}),
                                          version_.Part(2, {}), version_.Part(3, {{96}, {32}}),
                                          version_.Part(4, {{9}, {0}})};
};

TEST_F(PartPullTest, PullsPartsByRule) {
  for (const uint64_t chunk_bytes : {8, 40, 64, 1000}) {
    Say(version_.StreamParts(parts_, chunk_bytes));
    ExpectParts(Pull(ByRule()), parts_);
  }
}

TEST_F(PartPullTest, PullsPartsByBox) {
  Say(version_.StreamParts(parts_));
  ExpectParts(Pull(ByBox(parts_)), parts_);
}

TEST_F(PartPullTest, PartsMayBeColumnsAndWholeTensors) {
  std::vector<TensorPart> parts = parts_;
  parts[0] = version_.Part(0, {{1, 4}, {6, 7}});
  parts[4] = version_.Part(4, {{0}, {9}});
  Messages messages = version_.StreamParts(parts);
  Say(messages);
  ExpectParts(Pull(ByRule()), parts);
  ExpectParts(Pull(ByBox(parts)), parts);
  PullOptions one = ByBox({parts[0], parts[1], parts[3]});  // the others are whole anyway
  ExpectParts(Pull(one), parts);
  ToProto(parts[4].box, *messages[2].mutable_manifest()->mutable_entries(2)->mutable_box());  // may be said as well
  Say(messages);
  ExpectParts(Pull(one), parts);
}

TEST_F(PartPullTest, SelectsTensorsToo) {
  const std::vector<TensorPart> parts = {parts_[0], parts_[3]};
  PullOptions options = ByRule();
  options.names = {"a.weight", "exact"};
  Say(version_.StreamParts(parts));
  ExpectParts(Pull(options), parts);
  options = ByBox(parts_);  // of tensors that are not selected as well
  options.filter = "a";
  ExpectParts(Pull(options), parts);
}

TEST_F(PartPullTest, TheSinkHasRoomForThePartOnly) {
  Say(version_.StreamParts(parts_));
  RecordingSink sink;
  ASSERT_TRUE(subscriber_->Pull(ByRule(), sink).ok());
  EXPECT_EQ(sink.data[0].size(), 3u * 13 * 2);
  EXPECT_EQ(sink.received, 78u + 4 + 32);
  RecordingSink large;
  large.extra_bytes = 1;
  const absl::Status status = subscriber_->Pull(ByRule(), large).status();
  EXPECT_NE(status.message().find("79 bytes for tensor a.weight BF16 [7, 13] box [2:5, 0:13]; expected 78"),
            std::string::npos)
      << status;
}

TEST_F(PartPullTest, AnotherBoxThanAskedForIsRefused) {
  std::vector<TensorPart> asked = parts_;
  asked[0].box = {{3, 0}, {3, 13}};
  Say(version_.StreamParts(parts_));
  ExpectRefused(ByBox(asked), kInternal, "has box [2:5, 0:13] of tensor a.weight BF16 [7, 13]; another was asked for");
  PullOptions options = ByRule();  // rules do not apply to it
  options.boxes = {{"a.weight", WholeBox({7, 13})}};
  ExpectRefused(options, kInternal, "another was asked for");
  // A service that knows no boxes sends everything.
  Say(version_.Stream());
  ExpectRefused(ByBox(asked), kInternal, "has box [0:7, 0:13] of tensor a.weight");
  asked[0].box = {{0}, {7}};
  ExpectRefused(ByBox(asked), kInternal, "another was asked for");
}

TEST_F(PartPullTest, AnUnaskedPartIsRefused) {
  Say(version_.StreamParts(parts_));
  ExpectRefused(ByBox({parts_[0], parts_[1], parts_[3]}), kInternal,
                "part of tensor last I64 [9] box [9:9] only; all was asked for");
}

TEST_F(PartPullTest, ABoxThatDoesNotComeIsMissed) {
  Say(version_.StreamParts(parts_));
  PullOptions options = ByBox(parts_);
  options.boxes.emplace_back("absent", Box{{0}, {1}});
  ExpectRefused(options, kInternal, "lacks tensor absent, of which a box was asked for");
}

TEST_F(PartPullTest, ATensorLeftOutIsMissed) {
  Say(version_.StreamParts({parts_[0], parts_[3]}));
  ExpectRefused(ByRule(), kInternal, "the manifest has 2 tensors of 110 bytes, its header says 5");
}

TEST_F(PartPullTest, BadBoxesAreRefused) {
  for (const Box& box : {Box{{2}, {3}}, Box{{}, {}}, Box{{-1, 0}, {3, 13}}, Box{{0, 0}, {3, -13}}, Box{{5, 0}, {3, 13}},
                         Box{{INT64_MAX, 0}, {INT64_MAX, 13}}, Box{{2, 0}, {INT64_MAX, 13}}}) {
    Messages messages = version_.StreamParts(parts_);
    ToProto(box, *Entry(messages).mutable_box());
    Say(messages);
    ExpectRefused(ByRule(), kInternal, "a bad entry in the manifest: tensor a.weight BF16 [7, 13]: a box ");
  }
}

TEST_F(PartPullTest, SizesOfThePartCount) {
  Messages messages = version_.StreamParts(parts_);
  Entry(messages).set_bytes(182);
  Say(messages);
  ExpectRefused(ByRule(), kInternal, "tensor a.weight BF16 [7, 13] box [2:5, 0:13] 182 bytes; expected 78");

  messages = version_.StreamParts(parts_);
  messages[4].mutable_chunk()->mutable_payload()->append("xx");
  Say(messages);
  ExpectRefused(ByRule(), kInternal, "box [2:5, 0:13], chunk at offset 64: 16 bytes, but the tensor lacks 14");

  messages = version_.StreamParts(parts_);
  messages[4].mutable_chunk()->set_offset(2 * 26 + 64);  // counted in the tensor
  Say(messages);
  ExpectRefused(ByRule(), kInternal, "at offset 116; expected number 0");
}

// The right bytes under the wrong place.
TEST_F(PartPullTest, TheDigestCoversTheBox) {
  Messages messages = version_.StreamParts(parts_);
  ToProto(Box{{3, 0}, {3, 13}}, *Entry(messages).mutable_box());
  Say(messages);
  ExpectRefused(ByRule(), kDataLoss, "the tensors selected");

  messages = version_.StreamParts(parts_);
  (*messages[4].mutable_chunk()->mutable_payload())[5] ^= 1;
  Say(messages);
  ExpectRefused(ByRule(), kDataLoss, "tensor a.weight BF16 [7, 13] box [2:5, 0:13], chunk at offset 64");

  messages = version_.StreamParts(parts_);
  messages[4].mutable_chunk()->set_tensor_digest(2);
  Say(messages);
  ExpectRefused(ByRule(), kDataLoss, "box [2:5, 0:13]: its digest is 0000000000000002");
}

TEST_F(SubscriberTest, GarbageIsRefused) {
  for (const std::string& bytes :
       {std::string("\x0a\x7f\x08"), std::string("\xff\xff\xff"), std::string(100, '\x0a')}) {
    service_.Say({{Raw(bytes)}});
    EXPECT_EQ(Pull().status().code(), absl::StatusCode::kInternal);
  }
}

TEST_F(SubscriberTest, SilenceEndsAPull) {
  Messages messages = version_.Stream();
  messages.resize(6);
  service_.Say({Encode(messages), grpc::Status::OK, true});
  const absl::Status status = Pull({.idle_timeout = milliseconds(100)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(status.message().find("pull of default/latest"), std::string::npos) << status;
}

TEST_F(SubscriberTest, AServiceThatDiesEndsAPull) {
  service_.Say({{}, grpc::Status::OK, true});
  std::thread killer([&] { server_.Stop(); });
  PullOptions options;
  options.resume_within = milliseconds(300);
  const absl::Status status = Pull(options).status();
  killer.join();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SubscriberTest, CancelEndsWhatRunsAndWhatFollows) {
  service_.Say({{}, grpc::Status::OK, true});
  std::thread canceller([&] { subscriber_->Cancel(); });
  EXPECT_EQ(Pull().status().code(), absl::StatusCode::kCancelled);
  canceller.join();
  EXPECT_EQ(Pull().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(subscriber_->Watch({}, [](const auto&) { return true; }).code(), absl::StatusCode::kCancelled);
}

class WatchTest : public SubscriberTest {
 protected:
  static PullScript Events(std::initializer_list<uint64_t> versions) {
    PullScript script;
    for (const uint64_t version : versions) {
      v1::VersionEvent event;
      event.mutable_version()->set_version(version);
      script.messages.push_back(Serialize(event));
    }
    return script;
  }
};

TEST_F(WatchTest, UntilTheCallerHasSeenEnough) {
  PullScript script = Events({4, 5, 6});
  script.hangs = true;
  service_.Say(script);
  std::vector<uint64_t> seen;
  const absl::Status status = subscriber_->Watch(
      {.model = "m", .after = 3, .trainer_epoch = 7, .worker = "w", .life = 9}, [&](const VersionSummary& version) {
        seen.push_back(version.version);
        return version.version < 5;
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen, (std::vector<uint64_t>{4, 5}));
  v1::WatchVersionsRequest request;
  ASSERT_TRUE(Parse(service_.request(), request).ok());
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.after(), 3u);
  EXPECT_EQ(request.trainer_epoch(), 7u);
  EXPECT_EQ(request.life(), 9u);
  EXPECT_EQ(request.worker(), "w");
}

TEST_F(WatchTest, EndsWithAReason) {
  const auto watch = [&] {
    return subscriber_->Watch(
        {.model = "m"}, [](const auto&) { return true; }, milliseconds(100));
  };
  PullScript script = Events({1});
  service_.Say(script);
  EXPECT_EQ(watch().code(), absl::StatusCode::kUnavailable);
  script.status = grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "not you");
  service_.Say(script);
  EXPECT_EQ(watch(), absl::PermissionDeniedError("watch of m at " + server_.address() + ": not you"));
  script.hangs = true;
  service_.Say(script);
  EXPECT_EQ(watch().code(), absl::StatusCode::kDeadlineExceeded);
  service_.Say({{Raw("\xff\xff")}});
  EXPECT_EQ(watch().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace refit
