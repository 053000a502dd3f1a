// A trainer that casts before it sends makes the version that a service makes that casts by itself: the same bytes, the
// same digests, the same errors. A push in process is the service that casts.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/net/messages.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/support/gather.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
constexpr Transport kTransports[] = {Transport::kWire, Transport::kSharedMemory};
constexpr uint64_t kChunkBytes = 64 << 10;  // long enough for shared memory
constexpr char kLayer[] = "model.language_model.layers.0.";

template <typename Bits>
void Append(Bytes& bytes, std::initializer_list<Bits> values) {
  for (const Bits bits : values) {
    const auto* begin = reinterpret_cast<const std::byte*>(&bits);
    bytes.insert(bytes.end(), begin, begin + sizeof(bits));
  }
}

// Both signs of zero, subnormals, the values beside each border of the smaller types, ties, infinities, and NaNs of
// several payloads, quiet and signalling.
Bytes Special(DType dtype) {
  Bytes bytes;
  if (dtype == DType::kF64) {
    Append<uint64_t>(bytes, {0,
                             1ULL << 63,
                             1,
                             0x000FFFFFFFFFFFFF,
                             0x7FF0000000000000,
                             0xFFF0000000000000,
                             0x7FF0000000000001,
                             0x7FF8000000000001,
                             0xFFFFFFFFFFFFFFFF,
                             0x7FEFFFFFFFFFFFFF,
                             0x36A0000000000000,
                             0x3690000000000001,
                             0x380FFFFFC0000000,
                             0x47EFFFFFE0000000,
                             0x47EFFFFFF0000000,
                             0x40EFFC0000000000,
                             0x40EFFE0000000000,
                             0x40EFFDFFFFFFFFFF,
                             0x3FF0100000000001,
                             0x3FF0100000000000,
                             0x3FF00FFFFFFFFFFF,
                             0x3FF0080000000001});
  } else if (dtype == DType::kF32) {
    Append<uint32_t>(bytes,
                     {0,          0x80000000, 1,          0x80000001, 0x007FFFFF, 0x7F800000, 0xFF800000, 0x7F800001,
                      0x7FC00001, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x477FE000, 0x477FEFFF,
                      0x477FF000, 0x47800000, 0x33000000, 0x33000001, 0x33800000, 0x387FFFFF, 0x38800000, 0x3F808000,
                      0x3F818000, 0x3F808001, 0x3F807FFF, 0x3F801000, 0x3F803000, 0x3F801001});
  } else {
    for (uint32_t bits = 0; bits <= std::numeric_limits<uint16_t>::max(); ++bits) {
      Append<uint16_t>(bytes, {static_cast<uint16_t>(bits)});
    }
  }
  return bytes;
}

// The special values first, as many as fit, then random bits.
Bytes Values(const TensorSpec& spec) {
  Bytes bytes(spec.ByteSize());
  std::mt19937_64 random(bytes.size() + spec.name.size());
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  if (IsCastable(spec.dtype)) {
    const Bytes special = Special(spec.dtype);
    std::copy_n(special.begin(), std::min(special.size(), bytes.size()), bytes.begin());
  }
  return bytes;
}

// Tensors of every source type for every kind of output, besides some that no cast changes.
std::vector<TensorSpec> Model() {
  std::vector<TensorSpec> native = {{"tokens", DType::kI64, {77}},
                                    {"scales", DType::kF8E8M0, {5, 32}},
                                    {"packed", DType::kF4Packed, {4, 16}},
                                    {"complex", DType::kC64, {9}}};
  for (size_t i = 0; i < std::size(kFloats); ++i) {
    const std::string layer = absl::StrCat("model.language_model.layers.", i, ".");
    native.push_back({layer + "norm.weight", kFloats[i], {70'001}});
    native.push_back({layer + "moe.gate.scale", kFloats[i], {6}});
    native.push_back({layer + "moe.gate.e_score_correction_bias", kFloats[i], {31}});
    native.push_back({layer + "moe.experts.gate_and_up_projs", kFloats[i], {3, 150, 170}});
    native.push_back({layer + "moe.experts.down_projs", kFloats[i], {3, 70, 90}});
    native.push_back({layer + "empty", kFloats[i], {0, 4}});
    native.push_back({layer + "scalar", kFloats[i], {}});
    native.push_back({layer + "frozen.weight", kFloats[i], {100}});
  }
  return native;
}

PublishOptions Options(std::optional<DType> dtype, const std::string& adapter = "gemma4_moe") {
  PublishOptions options;
  options.adapter = adapter;
  options.dtype = dtype;
  return options;
}

struct Result {
  std::vector<TensorSpec> specs;
  std::vector<Bytes> bytes;
  uint64_t manifest_digest = 0;
  uint64_t received_bytes = 0;
};

class CastPush : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = kChunkBytes;
    options.store.retain_versions = 1;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
  }

  ChannelOptions Channel(Transport transport) const {
    ChannelOptions channel;
    channel.address = server_->address();
    channel.transport = transport;
    return channel;
  }

  // Pushes the model's tensors in turn, `elements` of each at a time.
  static absl::Status PushAll(VersionPush& push, int64_t elements, bool owned) {
    std::vector<std::shared_ptr<Bytes>> values;
    for (const TensorPart& shard : push.shards()) values.push_back(std::make_shared<Bytes>(Values(shard.tensor)));
    bool more = true;
    for (uint64_t turn = 0; more; ++turn) {
      more = false;
      for (size_t i = 0; i < values.size(); ++i) {
        const uint64_t size = elements * ElementSize(push.shards()[i].tensor.dtype);
        if (turn * size >= values[i]->size()) continue;
        more = true;
        const auto piece = absl::MakeConstSpan(*values[i]).subspan(turn * size, size);
        if (absl::Status status = push.Append(i, piece, owned ? values[i] : nullptr); !status.ok()) return status;
      }
    }
    return push.Commit().status();
  }

  absl::StatusOr<Result> Pull(uint64_t version) {
    auto subscriber = Subscriber::Connect(Channel(Transport::kWire));
    if (!subscriber.ok()) return subscriber.status();
    PullOptions options;
    options.version = version;
    absl::StatusOr<PulledVersion> pulled = (*subscriber)->Pull(options);
    if (!pulled.ok()) return pulled.status();
    const VersionSummary& summary = pulled->result.version;
    Result result{{}, {}, *summary.manifest_digest, summary.received_bytes};
    for (const PulledTensor& tensor : pulled->tensors) {
      result.specs.push_back(tensor.part.tensor);
      result.bytes.emplace_back(tensor.data->data(), tensor.data->data() + tensor.part.ByteSize());
    }
    return result;
  }

  absl::StatusOr<Result> PushInProcess(PublishOptions options, const std::vector<TensorSpec>& native) {
    options.version = ++version_;
    auto push = server_->OpenVersion(options, native);
    if (!push.ok()) return push.status();
    if (absl::Status status = PushAll(**push, std::numeric_limits<int32_t>::max(), false); !status.ok()) return status;
    return Pull(version_);
  }

  absl::StatusOr<Result> PushOverTheWire(PublishOptions options, const std::vector<TensorSpec>& native,
                                         Transport transport, int64_t elements, bool owned) {
    options.version = ++version_;
    auto publisher = Publisher::Connect(Channel(transport));
    if (!publisher.ok()) return publisher.status();
    auto push = (*publisher)->Open(options, native);
    if (!push.ok()) return push.status();
    EXPECT_EQ((*push)->shards(), WholeParts(native));
    if (absl::Status status = PushAll(**push, elements, owned); !status.ok()) return status;
    return Pull(version_);
  }

  static void ExpectSame(const Result& got, const Result& expected) {
    EXPECT_EQ(got.specs, expected.specs);
    EXPECT_EQ(got.manifest_digest, expected.manifest_digest);
    for (size_t i = 0; i < expected.bytes.size(); ++i) EXPECT_EQ(got.bytes[i], expected.bytes[i]) << got.specs[i].name;
  }

  std::unique_ptr<RefitServer> server_;
  uint64_t version_ = 0;
};

uint64_t SentBytes(const std::vector<TensorSpec>& native, DType to) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : native) {
    const uint64_t as_it_is = spec.ByteSize();
    const uint64_t cast = as_it_is / ElementSize(spec.dtype) * ElementSize(to);
    bytes += IsCastable(spec.dtype) ? std::min(as_it_is, cast) : as_it_is;
  }
  return bytes;
}

TEST_F(CastPush, TheVersionIsTheServices) {
  for (const char* adapter : {"gemma4_moe", "identity"}) {
    for (const DType to : kFloats) {
      PublishOptions options = Options(to, adapter);
      options.keep_family_dtypes = false;
      const auto expected = PushInProcess(options, Model());
      ASSERT_OK(expected);
      for (const Transport transport : kTransports) {
        for (const int64_t elements : {1'000'000, 9'973, 8'192}) {
          const bool owned = elements == 9'973;
          SCOPED_TRACE(absl::StrCat(adapter, " to ", Name(to), ", ", transport == Transport::kWire ? "wire" : "memory",
                                    ", ", elements, " elements"));
          const auto pushed = PushOverTheWire(options, Model(), transport, elements, owned);
          ASSERT_OK(pushed);
          ExpectSame(*pushed, *expected);
          EXPECT_EQ(pushed->received_bytes, SentBytes(Model(), to));
        }
      }
    }
  }
}

TEST_F(CastPush, ElementByElement) {
  const std::vector<TensorSpec> native = {{"w", DType::kF32, {301}}, {"v", DType::kF64, {5, 60}}};
  const PublishOptions options = Options(DType::kBF16);
  const auto expected = PushInProcess(options, native);
  ASSERT_OK(expected);
  for (const Transport transport : kTransports) {
    const auto pushed = PushOverTheWire(options, native, transport, 1, false);
    ASSERT_OK(pushed);
    ExpectSame(*pushed, *expected);
  }
}

TEST_F(CastPush, WhatIsKeptOrExcludedStays) {
  PublishOptions options = Options(DType::kBF16);
  options.keep_dtype_regex = ".*(e_score_correction_bias|gate\\.scale|down_projs)";
  options.exclude_key_regex = ".*frozen";
  const auto expected = PushInProcess(options, Model());
  ASSERT_OK(expected);
  for (const Transport transport : kTransports) {
    const auto pushed = PushOverTheWire(options, Model(), transport, 9'973, true);
    ASSERT_OK(pushed);
    ExpectSame(*pushed, *expected);
  }
}

// A way to compute with floating-point numbers that a trainer's thread may have chosen.
struct Environment {
  const char* name;
  std::function<void()> enter;
};

std::vector<Environment> Environments() {
  std::vector<Environment> environments = {{"toward zero", [] { std::fesetround(FE_TOWARDZERO); }},
                                           {"upward", [] { std::fesetround(FE_UPWARD); }},
                                           {"traps", [] { feenableexcept(FE_INVALID | FE_OVERFLOW | FE_DIVBYZERO); }}};
#ifdef __SSE2__
  // As torch.set_flush_denormal(True), and libraries that were built with -ffast-math.
  environments.push_back({"without subnormals", [] { _mm_setcsr(_mm_getcsr() | 0x8040); }});
#endif
  return environments;
}

// The bits are the same on any thread of a trainer, which keeps its own way to compute.
TEST_F(CastPush, TheTrainersFloatingPointEnvironmentMakesNoDifference) {
  for (const DType to : kFloats) {
    const PublishOptions options = Options(to);
    const auto expected = PushInProcess(options, Model());
    ASSERT_OK(expected);
    for (const Environment& environment : Environments()) {
      SCOPED_TRACE(absl::StrCat("to ", Name(to), ", ", environment.name));
      std::vector<absl::StatusOr<Result>> pushed;
      bool kept = false;
      std::thread([&] {
        environment.enter();
        std::fenv_t before;
        std::fegetenv(&before);
        for (const Transport transport : kTransports) {
          pushed.push_back(PushOverTheWire(options, Model(), transport, 9'973, true));
        }
        pushed.push_back(PushInProcess(options, Model()));
        std::fenv_t after;
        std::fegetenv(&after);
        kept = std::memcmp(&before, &after, sizeof(before)) == 0;
        std::fesetenv(FE_DFL_ENV);
      }).join();
      EXPECT_TRUE(kept);
      for (const auto& result : pushed) {
        ASSERT_OK(result);
        ExpectSame(*result, *expected);
      }
    }
  }
}

// What the service says does not depend on where the cast is done.
TEST_F(CastPush, ErrorsAreTheServices) {
  const std::vector<TensorSpec> fine = {{"w", DType::kF32, {3}}};
  const auto with = [](auto change, DType dtype = DType::kBF16) {
    PublishOptions options = Options(dtype);
    change(options);
    return options;
  };
  const auto nothing = [](PublishOptions&) {};
  const std::vector<std::pair<PublishOptions, std::vector<TensorSpec>>> refused = {
      {with([](auto& o) { o.keep_dtype_regex = "bias"; }), fine},
      {with([](auto& o) { o.keep_dtype_regex = "("; }), fine},
      {with([](auto& o) { o.exclude_key_regex = "(?=x)"; }), fine},
      {with([](auto& o) { o.exclude_key_regex = ".*"; }), fine},
      {with([](auto& o) { o.adapter = "another"; }), fine},
      {with(nothing, DType::kF8E4M3), fine},
      {with(nothing), {{"x.moe.experts.down_projs", DType::kF32, {2, 3, 4}}}},
      {with(nothing), {{std::string(kLayer) + "moe.experts.down_projs", DType::kF32, {4}}}},
      {with(nothing), {{std::string(kLayer) + "moe.experts.down_projs", DType::kF4Packed, {2, 3, 4}}}},
      {with(nothing, DType::kF64), {{"w", DType::kBF16, {std::numeric_limits<int64_t>::max() / 4}}}},
  };
  for (const auto& [options, native] : refused) {
    const absl::Status expected = PushInProcess(options, native).status();
    ASSERT_EQ(expected.code(), absl::StatusCode::kInvalidArgument) << expected;
    const absl::Status got = PushOverTheWire(options, native, Transport::kWire, 100, false).status();
    EXPECT_EQ(got.code(), expected.code()) << got;
    // What it is about, without the version's number in both.
    const std::string what = std::string(expected.message()).substr(expected.message().rfind(": ") + 2);
    EXPECT_THAT(std::string(got.message()), HasSubstr(what));
  }
}

class ShardedCastPush : public CastPush {
 protected:
  static PublishOptions OfRank(PublishOptions options, uint64_t version, uint32_t rank) {
    options.version = version;
    options.rank = rank;
    options.world = 2;
    return options;
  }

  // Each of two ranks holds one half of every expert tensor and of every row, and the rest whole.
  static std::vector<TensorPart> ShardsOf(int64_t rank, const std::vector<TensorSpec>& native) {
    std::vector<TensorPart> shards;
    for (const TensorSpec& spec : native) {
      TensorPart shard = TensorPart::Whole(spec);
      if (spec.shape.size() > 2) {
        const size_t dimension = absl::StrContains(spec.name, "down") ? 2 : 0;
        shard.box = Cut(shard.box, dimension, Split::kCeil, rank, 2);
      }
      shards.push_back(std::move(shard));
    }
    return shards;
  }

  static absl::Status PushShards(VersionPush& push, size_t piece) {
    for (size_t i = 0; i < push.shards().size(); ++i) {
      const TensorPart& shard = push.shards()[i];
      const Bytes bytes = Gather(shard, Values(shard.tensor));
      const size_t size = piece * ElementSize(shard.tensor.dtype);
      for (size_t begin = 0; begin < bytes.size(); begin += size) {
        const auto part = absl::MakeConstSpan(bytes).subspan(begin, size);
        if (absl::Status status = push.Append(i, part); !status.ok()) return status;
      }
    }
    return push.Commit().status();
  }

  absl::Status PushRank(const PublishOptions& options, const std::vector<TensorSpec>& native, Transport transport) {
    auto publisher = Publisher::Connect(Channel(transport));
    if (!publisher.ok()) return publisher.status();
    auto push = (*publisher)->OpenShards(options, ShardsOf(options.rank, native));
    if (!push.ok()) return push.status();
    if (options.rank == 1) {
      digested_ = 0;
      for (size_t i = 0; i < native.size(); ++i) digested_ += (*push)->digest_only(i) ? 1 : 0;
    }
    return PushShards(**push, 9'973);
  }

  size_t digested_ = 0;  // shards of rank 1 that rank 0 sends
};

TEST_F(ShardedCastPush, RanksMakeTheVersionOfOne) {
  for (const DType to : kFloats) {
    PublishOptions options = Options(to);
    options.keep_dtype_regex = ".*bias";
    const auto expected = PushInProcess(options, Model());
    ASSERT_OK(expected);
    for (const Transport transport : kTransports) {
      SCOPED_TRACE(absl::StrCat(Name(to), transport == Transport::kWire ? ", wire" : ", memory"));
      ++version_;
      std::vector<absl::Status> status(2);
      std::thread other([&] { status[1] = PushRank(OfRank(options, version_, 1), Model(), transport); });
      status[0] = PushRank(OfRank(options, version_, 0), Model(), transport);
      other.join();
      for (const absl::Status& rank : status) ASSERT_OK(rank);
      EXPECT_GT(digested_, 0U);
      const auto pushed = Pull(version_);
      ASSERT_OK(pushed);
      ExpectSame(*pushed, *expected);
    }
  }
}

// Replicas are compared as they are sent: the payload of a NaN, which no cast keeps, makes no difference.
TEST_F(ShardedCastPush, ReplicasThatCastToTheSameBitsAgree) {
  const TensorSpec norm{"norm", DType::kF32, {2}};
  const PublishOptions options = Options(DType::kBF16);
  ++version_;
  const auto push = [&](uint32_t rank, uint32_t nan) -> absl::Status {
    auto publisher = Publisher::Connect(Channel(Transport::kWire));
    if (!publisher.ok()) return publisher.status();
    auto opened = (*publisher)->OpenShards(OfRank(options, version_, rank), {TensorPart::Whole(norm)});
    if (!opened.ok()) return opened.status();
    Bytes bytes;
    Append<uint32_t>(bytes, {0x3F800001, nan});
    if (absl::Status status = (*opened)->Push("norm", bytes); !status.ok()) return status;
    return (*opened)->Commit().status();
  };
  std::vector<absl::Status> status(2);
  std::thread other([&] { status[1] = push(1, 0x7FC00001); });
  status[0] = push(0, 0x7FC00002);
  other.join();
  for (const absl::Status& rank : status) EXPECT_OK(rank);
}

TEST_F(ShardedCastPush, RanksMayHoldATensorInOtherTypesIfTheySendItInOne) {
  const std::vector<TensorSpec> masters = {{"norm", DType::kF32, {3}}};
  const std::vector<TensorSpec> copies = {{"norm", DType::kBF16, {3}}};
  const PublishOptions options = Options(DType::kBF16);
  ++version_;
  const auto push = [&](uint32_t rank, const std::vector<TensorSpec>& native, const Bytes& bytes) -> absl::Status {
    auto publisher = Publisher::Connect(Channel(Transport::kWire));
    if (!publisher.ok()) return publisher.status();
    auto opened = (*publisher)->OpenShards(OfRank(options, version_, rank), WholeParts(native));
    if (!opened.ok()) return opened.status();
    if (absl::Status status = (*opened)->Push("norm", bytes); !status.ok()) return status;
    return (*opened)->Commit().status();
  };
  Bytes full;
  Append<uint32_t>(full, {0x3F800000, 0x3F80FFFF, 0xBF808000});
  Bytes rounded;
  Append<uint16_t>(rounded, {0x3F80, 0x3F81, 0xBF80});
  absl::Status of_rank_1;
  std::thread other([&] { of_rank_1 = push(1, copies, rounded); });
  EXPECT_OK(push(0, masters, full));
  other.join();
  EXPECT_OK(of_rank_1);
  const auto pulled = Pull(version_);
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->bytes[0], rounded);
}

// Speaks as a client from before casts were done on the trainer's side.
absl::Status PushAsOlderClient(const std::string& address, const PublishOptions& options, const TensorSpec& native) {
  const auto stub = v1::PushService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Push(&context);
  v1::PushRequest request;
  v1::OpenVersion& open = *request.mutable_open();
  open.set_model(options.model);
  open.set_version(options.version);
  open.set_adapter(options.adapter);
  open.set_dtype(static_cast<v1::DType>(*options.dtype));
  open.set_rank(options.rank);
  open.set_world(options.world);
  stream->Write(request);
  ToProto(native, *request.mutable_declare()->add_tensors()->mutable_tensor());
  request.mutable_declare()->set_last(true);
  stream->Write(request);
  v1::PushResponse response;
  while (stream->Read(&response) && !response.has_opened()) continue;
  if (response.has_opened()) context.TryCancel();
  const grpc::Status status = stream->Finish();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

TEST_F(ShardedCastPush, ARankOfAnOlderClientIsToldWhatToDo) {
  const TensorSpec norm{"norm", DType::kF32, {2}};
  const PublishOptions options = Options(DType::kBF16);
  ++version_;
  absl::Status old;
  std::thread other([&] { old = PushAsOlderClient(server_->address(), OfRank(options, version_, 1), norm); });
  const absl::Status current = PushRank(OfRank(options, version_, 0), {norm}, Transport::kWire);
  other.join();
  for (const absl::Status& status : {old, current}) {
    EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kInvalidArgument, absl::StatusCode::kAborted));
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("norm F32 [2]"), HasSubstr("norm BF16 [2]"),
                                                     HasSubstr("the release of refit on some ranks is older")));
  }
}

}  // namespace
}  // namespace refit
