// A trainer that embeds the service, with its tensors in memory: publishes a version whenever it is told to.
//
// Reads version numbers from stdin, one a line. Prints "ready <native bytes> <threads>", then for each version
// "<version> <seconds>" from opening to commit. The calling thread converts too; with --step it does so alone.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <limits>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "client/native/native_source.h"
#include "client/native/shard_source.h"
#include "common/net/channel.h"
#include "refit/server.h"
#include "refit/tuning.h"
#include "tests/bench/shard_values.h"

namespace refit {
namespace {

struct Flags {
  ServerOptions server;
  PublishOptions publish;
  SyntheticOptions synthetic;
  size_t step = std::numeric_limits<size_t>::max();
};

absl::Status PublishVersion(RefitServer& server, const Flags& flags, const ShardSource& source,
                            const ShardValues& values) {
  std::vector<TensorSpec> native;
  for (const TensorPart& shard : source.shards()) native.push_back(shard.tensor);
  const absl::StatusOr<std::unique_ptr<VersionPush>> push = server.OpenVersion(flags.publish, std::move(native));
  if (!push.ok()) return push.status();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == nullptr) continue;
    const absl::Span<const std::byte> bytes = values[i]->span();
    for (size_t at = 0; at < bytes.size(); at += std::min(flags.step, bytes.size())) {
      if (absl::Status status = (*push)->Append(i, bytes.subspan(at, flags.step)); !status.ok()) return status;
    }
  }
  return (*push)->Commit().status();
}

absl::Status Run(Flags& flags) {
  absl::StatusOr<std::shared_ptr<const NativeSource>> native = OpenSyntheticSource(flags.synthetic);
  if (!native.ok()) return native.status();
  std::vector<TensorPart> whole = WholeParts((*native)->tensors());
  const absl::StatusOr<std::shared_ptr<const ShardSource>> source =
      ShardSource::Cut(*std::move(native), std::move(whole));
  if (!source.ok()) return source.status();
  const absl::StatusOr<ShardValues> values = MakeShardValues(**source, flags.publish.exclude_key_regex);
  if (!values.ok()) return values.status();
  const absl::StatusOr<std::unique_ptr<RefitServer>> server = RefitServer::Start(flags.server);
  if (!server.ok()) return server.status();
  uint64_t bytes = 0;
  for (const std::shared_ptr<Buffer>& buffer : *values) bytes += buffer == nullptr ? 0 : buffer->size();
  std::cout << "ready " << bytes << " " << flags.server.convert_threads << std::endl;
  while (std::cin >> flags.publish.version) {
    const auto begin = std::chrono::steady_clock::now();
    if (absl::Status status = PublishVersion(**server, flags, **source, *values); !status.ok()) return status;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::cout << absl::StrFormat("%d %.6f", flags.publish.version, seconds) << std::endl;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  TuneForBulkData();
  CLI::App app("A trainer that embeds the service, for benchmarks: publishes the versions whose numbers it reads");
  Flags flags;
  flags.server.listen = "127.0.0.1:0";
  flags.server.store.retain_versions = 1;
  flags.server.store.memory_budget_bytes = uint64_t{16} << 30;
  app.add_option("--convert-threads", flags.server.convert_threads)->required();
  app.add_option("--step", flags.step);
  app.add_option("--synthetic", flags.synthetic.model);
  app.add_option("--layers", flags.synthetic.layers);
  app.add_option("--exclude-key-regex", flags.publish.exclude_key_regex);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (!status.ok()) std::cerr << "bench-embedded: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }
