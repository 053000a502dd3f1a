// A trainer or worker in a process, or container, of its own. Prints one line about what it did, or the error.
//
//   mapped-peer push ADDRESS auto|wire|shared VERSION [TOKENS]
//   mapped-peer pull ADDRESS auto|wire|shared PULLS [TOKENS]
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "tests/integration/mapped_model.h"
#include "tests/support/push.h"

namespace refit {
namespace {

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

int Fail(const absl::Status& status) {
  std::printf("%s\n", status.ToString().c_str());
  return 1;
}

int Push(const ChannelOptions& channel, uint64_t version) {
  const auto pushed = PushIdentity(channel, version, MappedModel(), [&](size_t i) { return MappedValues(i, version); });
  return pushed.ok() ? 0 : Fail(pushed.status());
}

int Pull(const ChannelOptions& channel, uint64_t pulls) {
  auto subscriber = Subscriber::Connect(channel);
  if (!subscriber.ok()) return Fail(subscriber.status());
  size_t descriptors = 0;
  for (uint64_t i = 1; i <= pulls; ++i) {
    const auto pulled = (*subscriber)->Pull({});
    if (!pulled.ok()) return Fail(pulled.status());
    if (i == 1) descriptors = OpenDescriptors();
    if (i < pulls) continue;
    std::vector<uint64_t> digests;
    for (const PulledTensor& tensor : pulled->tensors) digests.push_back(DigestBytes(tensor.data->span()));
    std::printf("%s mapped=%d more=%zd not_mapped=%s\n", DigestsOf(digests).c_str(),
                pulled->result.traffic.mapped_bytes == pulled->result.bytes ? 1 : 0,
                static_cast<ssize_t>(OpenDescriptors() - descriptors), pulled->result.not_mapped.c_str());
  }
  return 0;
}

int Main(int argc, char** argv) {
  const std::map<std::string, Transport> transports = {
      {"auto", Transport::kAuto}, {"wire", Transport::kWire}, {"shared", Transport::kSharedMemory}};
  uint64_t number = 0;
  if (argc < 5 || transports.count(argv[3]) == 0 || !absl::SimpleAtoi(argv[4], &number)) return 2;
  ChannelOptions channel;
  channel.address = argv[2];
  channel.transport = transports.at(argv[3]);
  if (argc > 5) channel.security.token_file = argv[5];
  return std::string(argv[1]) == "push" ? Push(channel, number) : Pull(channel, number);
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }
