// Random meshes push random models in random order, workers pull random parts: together they have what the reference
// adapter makes of the whole tensors, bit for bit.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/adapters/gemma4_moe_state_dict_adapter.h"
#include "refit/mesh.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "tests/support/gather.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

constexpr int kCases = 500;
constexpr uint64_t kChunkBytes = 4096;  // so that tensors have many, which end anywhere

using Bytes = std::vector<std::byte>;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool Flip() { return Between(0, 1) == 1; }
  template <typename T>
  const T& Of(const std::vector<T>& choices) {
    return choices[Between(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  template <typename T>
  void Shuffle(std::vector<T>& values) {
    std::shuffle(values.begin(), values.end(), engine_);
  }
  uint64_t Seed() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

struct Model {
  std::vector<TensorSpec> native;
  std::vector<Bytes> bytes;
  std::optional<DType> dtype;          // of the version
  std::map<std::string, Bytes> hf;     // by the reference adapter
  std::map<std::string, Shape> shape;  // of those
  bool has_attention = false;
};

void Convert(Model& model) {
  const Gemma4MoEStateDictAdapter adapter((Gemma4MoeConfig()));
  ConvertOptions options;
  options.dtype = model.dtype;
  for (size_t i = 0; i < model.native.size(); ++i) {
    auto tensor = TensorOnBytes(model.native[i], model.bytes[i], nullptr);
    ASSERT_OK(tensor);
    auto converted = adapter.convert_single_tensor_to_hf(model.native[i].name, *tensor, options);
    ASSERT_OK(converted);
    for (const auto& [name, value] : *converted) {
      auto bytes = BytesOf(value);
      ASSERT_OK(bytes);
      model.hf[name].assign(bytes->begin(), bytes->end());
      model.shape[name] = SpecOf(name, value)->shape;
    }
  }
}

Model RandomModel(Random& random) {
  Model model;
  const DType dtype = random.Flip() ? DType::kBF16 : DType::kF32;
  if (random.Flip()) model.dtype = DType::kBF16;
  const int64_t experts = random.Between(1, 13);
  const int64_t hidden = random.Between(1, 40);
  const int64_t inner = random.Between(1, 40);
  const auto add = [&](const std::string& name, Shape shape) {
    model.native.push_back({name, dtype, std::move(shape)});
  };
  for (int64_t layer = random.Between(0, 1); layer >= 0; --layer) {
    const std::string prefix = absl::StrCat("model.language_model.layers.", layer, ".");
    add(prefix + "moe.experts.gate_and_up_projs", {experts, hidden, 2 * inner});
    add(prefix + "moe.experts.down_projs", {experts, inner, hidden});
    add(prefix + "moe.gate.proj.weight", {experts, hidden});
    add(prefix + "input_layernorm.weight", {hidden});
    if (random.Flip()) {
      add(prefix + "self_attn.q_proj.weight", {2 * inner, hidden});
      model.has_attention = true;
    }
    if (random.Flip()) add(prefix + "layer_scalar", {});
  }
  for (const TensorSpec& spec : model.native) {
    // Finite values: what NaNs become is the kernels' test.
    Bytes bytes(spec.ByteSize());
    for (size_t i = 0; i < bytes.size(); ++i) {
      const bool high = i % ElementSize(dtype) == ElementSize(dtype) - 1;
      bytes[i] = static_cast<std::byte>(high ? random.Between(0x38, 0x42) : random.Between(0, 255));
    }
    model.bytes.push_back(std::move(bytes));
  }
  Convert(model);
  return model;
}

Mesh RandomMesh(Random& random, const Model& model) {
  Mesh mesh;
  mesh.ep_size = random.Between(1, 8);
  mesh.ep_shard_size = random.Between(1, 4);
  if (model.has_attention && random.Between(0, 3) == 0) {
    mesh.tp_size = 2;
    mesh.tp_rules.push_back({LayoutRule::Scope::kAny, "q_proj", static_cast<uint32_t>(random.Between(0, 1))});
  }
  // Many ranks are as good as few at finding what is wrong, and cost more.
  if (mesh.ep_size * mesh.ep_shard_size > 8 && random.Between(0, 3) != 0) mesh.ep_shard_size = 1;
  const uint32_t replicas = mesh.ep_size * mesh.ep_shard_size * mesh.tp_size <= 8 ? random.Between(1, 2) : 1;
  const uint32_t inner = mesh.ep_size * mesh.ep_shard_size * replicas;
  mesh.world = inner * mesh.tp_size;
  std::vector<uint32_t> divisors;
  for (uint32_t d = 1; d <= inner; ++d) {
    if (inner % d == 0) divisors.push_back(d);
  }
  mesh.fsdp_size = random.Of(divisors);
  return mesh;
}

std::string Describe(const Mesh& mesh, const Model& model) {
  std::string text = absl::StrCat("world ", mesh.world, " ep ", mesh.ep_size, " ep_shard ", mesh.ep_shard_size,
                                  " fsdp ", mesh.fsdp_size, " tp ", mesh.tp_size, model.dtype ? " to BF16" : "");
  for (const TensorSpec& spec : model.native) absl::StrAppend(&text, "\n  ", spec.ToString());
  return text;
}

// One rank: its shards in random order, a piece of one and a piece of another.
absl::Status PushRank(Publisher& publisher, const PublishOptions& options, const Model& model,
                      const std::vector<LayoutRule>& rules, uint64_t seed, const std::function<void()>& opened) {
  Random random(seed);
  auto shards = ShardsOf(rules, options.adapter, model.native);
  if (!shards.ok()) return shards.status();
  std::vector<Bytes> bytes;
  for (size_t i = 0; i < shards->size(); ++i) bytes.push_back(Gather((*shards)[i], model.bytes[i]));
  auto push = publisher.OpenShards(options, *shards);
  if (!push.ok()) return push.status();
  opened();
  std::vector<size_t> open(bytes.size());
  for (size_t i = 0; i < open.size(); ++i) open[i] = i;
  std::vector<size_t> sent(bytes.size(), 0);
  while (!open.empty()) {
    const size_t i = random.Of(open);
    const size_t element = ElementSize(model.native[i].dtype);
    const size_t piece = std::min<size_t>(bytes[i].size() - sent[i], random.Between(1, 3000) * element);
    if (absl::Status status = (*push)->Append(i, absl::MakeConstSpan(bytes[i]).subspan(sent[i], piece)); !status.ok()) {
      return status;
    }
    sent[i] += piece;
    if (sent[i] == bytes[i].size()) open.erase(std::find(open.begin(), open.end(), i));
  }
  return (*push)->Commit().status();
}

// How workers share a version: each of experts x others has one part.
struct Workers {
  uint64_t experts;
  LayoutRule other;  // its parts
};

Workers RandomWorkers(Random& random) {
  Workers workers;
  workers.experts = random.Between(1, 5);
  workers.other.pattern = random.Flip() ? "experts.down_proj" : "router.proj.weight";
  workers.other.dimension = workers.other.pattern == "experts.down_proj" ? random.Between(0, 2) : random.Between(0, 1);
  workers.other.parts = random.Between(1, 3);
  workers.other.split = random.Flip() ? Split::kCeil : Split::kBalanced;
  return workers;
}

// Puts what one worker got to its place; counts how often each byte came.
struct Union {
  std::map<std::string, Bytes> bytes;
  std::map<std::string, std::vector<int>> times;

  void Add(const PulledTensor& tensor) {
    const std::string& name = tensor.part.tensor.name;
    const auto size = static_cast<int64_t>(ElementSize(tensor.part.tensor.dtype));
    bytes[name].resize(tensor.part.tensor.ByteSize());
    times[name].resize(tensor.part.tensor.ByteSize());
    const std::byte* from = tensor.data->data();
    BoxRuns(tensor.part.tensor.shape, tensor.part.box)
        .ForEach(0, ElementCount(tensor.part.box), [&](int64_t place, int64_t count) {
          std::memcpy(bytes[name].data() + place * size, from, count * size);
          for (int64_t i = place * size; i < (place + count) * size; ++i) ++times[name][i];
          from += count * size;
        });
  }
};

void PullUnion(Subscriber& subscriber, uint64_t version, const Workers& workers, const Model& model) {
  Union got;
  for (uint64_t e = 0; e < workers.experts; ++e) {
    for (uint64_t o = 0; o < workers.other.parts; ++o) {
      PullOptions options;
      options.version = version;
      LayoutRule experts;
      experts.scope = LayoutRule::Scope::kExperts;
      experts.part = e;
      experts.parts = workers.experts;
      LayoutRule other = workers.other;
      other.part = o;
      options.rules = {experts, other};
      auto pulled = subscriber.Pull(options);
      ASSERT_OK(pulled);
      for (const PulledTensor& tensor : pulled->tensors) {
        ASSERT_EQ(tensor.part.tensor.shape, model.shape.at(tensor.part.tensor.name));
        got.Add(tensor);
      }
    }
  }
  ASSERT_EQ(got.bytes.size(), model.hf.size());
  const auto workers_total = static_cast<int>(workers.experts * workers.other.parts);
  for (const auto& [name, bytes] : model.hf) {
    ASSERT_TRUE(got.bytes[name] == bytes) << name;
    const bool by_experts = name.find("experts.") != std::string::npos;
    const bool by_other = name.find(workers.other.pattern) != std::string::npos;
    const int times = workers_total / (by_experts ? static_cast<int>(workers.experts) : 1) /
                      (by_other ? static_cast<int>(workers.other.parts) : 1);
    for (const int seen : got.times[name]) ASSERT_EQ(seen, times) << name;
  }
}

Box RandomBox(Random& random, const Shape& shape) {
  Box box = WholeBox(shape);
  for (size_t d = 0; d < shape.size(); ++d) {
    box.offsets[d] = random.Between(0, shape[d]);
    box.sizes[d] = random.Between(0, shape[d] - box.offsets[d]);
  }
  return box;
}

void PullBoxes(Subscriber& subscriber, uint64_t version, Random& random, const Model& model) {
  PullOptions options;
  options.version = version;
  for (const auto& [name, shape] : model.shape) {
    options.names.push_back(name);
    if (random.Flip()) options.boxes.emplace_back(name, RandomBox(random, shape));
  }
  auto pulled = subscriber.Pull(options);
  ASSERT_OK(pulled);
  ASSERT_EQ(pulled->tensors.size(), model.hf.size());
  for (const PulledTensor& tensor : pulled->tensors) {
    const Bytes expected = Gather(tensor.part, model.hf.at(tensor.part.tensor.name));
    ASSERT_EQ(tensor.part.ByteSize(), expected.size());
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), tensor.data->data())) << tensor.part.ToString();
  }
}

class ShardedProperty : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = kChunkBytes;
    options.convert_threads = 2;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    ChannelOptions channel;
    channel.address = server_->address();
    auto publisher = Publisher::Connect(channel);
    ASSERT_OK(publisher);
    publisher_ = *std::move(publisher);
    auto subscriber = Subscriber::Connect(channel);
    ASSERT_OK(subscriber);
    subscriber_ = *std::move(subscriber);
  }

  // Pushes by all ranks at once while `worker` runs beside them, from when the version is open.
  void PushAndPull(uint64_t version, const Model& model, const Mesh& mesh, Random& random,
                   const std::function<void()>& worker) {
    absl::Notification open;
    std::atomic<bool> told{false};
    std::vector<absl::Status> pushed(mesh.world);
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < mesh.world; ++rank) {
      PublishOptions options;
      options.version = version;
      options.dtype = model.dtype;
      options.rank = rank;
      options.world = mesh.world;
      auto rules = RulesOfRank(mesh, rank);
      ASSERT_OK(rules);
      threads.emplace_back([&, options, rules = *rules, rank, seed = random.Seed()] {
        const auto notify = [&] {
          if (!told.exchange(true)) open.Notify();
        };
        pushed[rank] = PushRank(*publisher_, options, model, rules, seed, notify);
        notify();
      });
    }
    open.WaitForNotification();
    worker();
    for (std::thread& thread : threads) thread.join();
    for (uint32_t rank = 0; rank < mesh.world; ++rank) ASSERT_OK(pushed[rank]) << "rank " << rank;
  }

  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(ShardedProperty, WorkersTogetherHaveWhatTheReferenceMakesOfTheWhole) {
  int ranks = 0;
  int pulls = 0;
  for (int i = 1; i <= kCases; ++i) {
    Random random(i);
    const Model model = RandomModel(random);
    const Mesh mesh = RandomMesh(random, model);
    const Workers workers = RandomWorkers(random);
    SCOPED_TRACE(absl::StrCat("case ", i, ": ", Describe(mesh, model)));
    const bool while_pushed = random.Flip();
    PushAndPull(i, model, mesh, random, [&] {
      if (while_pushed) PullUnion(*subscriber_, i, workers, model);
    });
    if (!while_pushed) PullUnion(*subscriber_, i, workers, model);
    PullBoxes(*subscriber_, i, random, model);
    if (HasFatalFailure()) return;
    ranks += mesh.world;
    pulls += workers.experts * workers.other.parts + 1;
  }
  std::printf("%d random cases: %d ranks pushed, %d pulls, every byte as the reference has it\n", kCases, ranks, pulls);
}

}  // namespace
}  // namespace refit
