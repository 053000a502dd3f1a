// The examples of client/CPP.md, as they stand there, each in a function that has what it speaks of. run.sh cuts them
// out.
#include <refit/refit.h>

#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

struct Engine {
  void Pause() {}
  void Resume() {}
  void Load(const refit::TensorSpec& /*spec*/, absl::Span<const std::byte> /*bytes*/) {}
};

void Load(const refit::TensorSpec& /*spec*/, absl::Span<const std::byte> /*bytes*/) {}
absl::Span<const std::byte> LocalBytes(size_t /*index*/) { return {}; }

absl::Status Tls() {
#include "block_1.inc"
  return subscriber.status();
}

absl::Status Trainer(const std::vector<refit::TensorSpec>& specs,
                     const std::vector<std::pair<std::string, absl::Span<const std::byte>>>& tensors) {
#include "block_2.inc"
  return committed.status();
}

absl::Status Pull() {
#include "block_3.inc"
  return pulled.status();
}

absl::Status Follow(Engine& engine) {
#include "block_4.inc"
  return absl::OkStatus();
}

absl::Status Fleet(absl::StatusOr<std::unique_ptr<refit::Publisher>> publisher, refit::PublishOptions options) {
#include "block_5.inc"
  return !staged.ok() ? staged.status() : !released.ok() ? released.status() : installed.status();
}

absl::Status Shards(absl::StatusOr<std::unique_ptr<refit::Publisher>> publisher,
                    absl::StatusOr<std::unique_ptr<refit::Subscriber>> subscriber, refit::PublishOptions options,
                    std::vector<refit::TensorSpec> specs, uint32_t rank) {
#include "block_6.inc"
  return !committed.ok() ? committed.status() : part.status();
}
