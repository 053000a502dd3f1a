// One rank of a trainer that has its shards in memory, as a real one has, and pushes a version whenever it is told to.
//
// Reads version numbers from stdin, one a line. Prints "ready <shard bytes> <transport>", then for each version
// "<version> <seconds>" from opening to commit.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "client/native/native_source.h"
#include "client/native/shard_source.h"
#include "common/net/channel.h"
#include "refit/mesh.h"
#include "refit/publisher.h"
#include "refit/tuning.h"
#include "tests/bench/security_options.h"
#include "tests/bench/shard_values.h"
#include "tests/bench/transport_option.h"
#include "tests/bench/uniform_source.h"

namespace refit {
namespace {

struct Flags {
  ChannelOptions channel;
  SyntheticOptions synthetic;
  PublishOptions publish;
  Mesh mesh;
  // Instead of synthetic ones, unless 0: so many alike.
  uint64_t tensors = 0;
  uint64_t tensor_bytes = 1024;
  uint64_t expert_layers = 0;
  uint32_t streams = 1;
};

void AddDTypeOption(CLI::App& app, const std::string& name, std::optional<DType>& dtype) {
  app.add_option_function<std::string>(name, [name, &dtype](const std::string& text) {
    const absl::StatusOr<DType> parsed = ParseDType(text);
    if (!parsed.ok()) throw CLI::ValidationError(name, std::string(parsed.status().message()));
    dtype = *parsed;
  });
}

void AddOptions(CLI::App& app, Flags& flags) {
  app.add_option("--server", flags.channel.address)->required();
  app.add_option("--synthetic", flags.synthetic.model);
  app.add_option("--layers", flags.synthetic.layers);
  app.add_option("--seed", flags.synthetic.seed);
  app.add_option("--step", flags.synthetic.step);
  app.add_option("--change", flags.synthetic.change);
  AddDTypeOption(app, "--synthetic-dtype", flags.synthetic.dtype);
  AddDTypeOption(app, "--dtype", flags.publish.dtype);
  app.add_option("--tensors", flags.tensors);
  app.add_option("--tensor-bytes", flags.tensor_bytes);
  app.add_option("--expert-layers", flags.expert_layers);
  app.add_option("--adapter", flags.publish.adapter);
  app.add_option("--exclude-key-regex", flags.publish.exclude_key_regex);
  app.add_option("--rank", flags.publish.rank);
  app.add_option("--world", flags.mesh.world);
  app.add_option("--streams", flags.streams);
  app.add_option("--ep-size", flags.mesh.ep_size);
  app.add_option("--ep-shard-size", flags.mesh.ep_shard_size);
  app.add_option("--fsdp-size", flags.mesh.fsdp_size);
  AddTransportOption(app, flags.channel);
  AddSecurityOptions(app, flags.channel.security);
}

absl::StatusOr<std::shared_ptr<const NativeSource>> OpenNative(const Flags& flags) {
  if (flags.expert_layers > 0) return UniformSource::ExpertLayers(flags.expert_layers);
  if (flags.tensors == 0) return OpenSyntheticSource(flags.synthetic);
  return std::make_shared<UniformSource>(flags.tensors, flags.tensor_bytes);
}

absl::StatusOr<std::shared_ptr<const ShardSource>> OpenShards(const Flags& flags) {
  absl::StatusOr<std::shared_ptr<const NativeSource>> native = OpenNative(flags);
  if (!native.ok()) return native.status();
  const absl::StatusOr<std::vector<LayoutRule>> rules = RulesOfRank(flags.mesh, flags.publish.rank);
  if (!rules.ok()) return rules.status();
  absl::StatusOr<std::vector<TensorPart>> shards = ShardsOf(*rules, flags.publish.adapter, (*native)->tensors());
  if (!shards.ok()) return shards.status();
  return ShardSource::Cut(*std::move(native), *std::move(shards));
}

absl::Status PushVersion(Publisher& publisher, const PublishOptions& options, const ShardSource& source,
                         const ShardValues& values) {
  absl::StatusOr<std::unique_ptr<VersionPush>> push = publisher.OpenShards(options, source.shards());
  if (!push.ok()) return push.status();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == nullptr) continue;
    if (absl::Status status = (*push)->Append(i, values[i]->span(), values[i]); !status.ok()) return status;
  }
  return (*push)->Commit().status();
}

absl::Status Run(Flags& flags) {
  flags.publish.world = flags.mesh.world;
  if (flags.tensors > 0) flags.publish.adapter = "identity";
  const absl::StatusOr<std::shared_ptr<const ShardSource>> source = OpenShards(flags);
  if (!source.ok()) return source.status();
  const absl::StatusOr<ShardValues> values = MakeShardValues(**source, flags.publish.exclude_key_regex);
  if (!values.ok()) return values.status();
  const absl::StatusOr<std::unique_ptr<Publisher>> publisher = Publisher::Connect(flags.channel, flags.streams);
  if (!publisher.ok()) return publisher.status();
  uint64_t bytes = 0;
  for (const std::shared_ptr<Buffer>& buffer : *values) bytes += buffer == nullptr ? 0 : buffer->size();
  std::cout << "ready " << bytes << " " << TransportName(flags.channel) << std::endl;
  while (std::cin >> flags.publish.version) {
    const auto begin = std::chrono::steady_clock::now();
    if (absl::Status status = PushVersion(**publisher, flags.publish, **source, *values); !status.ok()) return status;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::cout << absl::StrFormat("%d %.6f", flags.publish.version, seconds) << std::endl;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  TuneForBulkData();
  CLI::App app("A rank of a trainer, for benchmarks: pushes the versions whose numbers it reads");
  Flags flags;
  AddOptions(app, flags);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (!status.ok()) std::cerr << "bench-trainer: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }
