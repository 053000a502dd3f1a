// A version that Python pushes over the wire.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/python/bindings/lent_shards.h"
#include "client/python/bindings/loans.h"
#include "refit/publisher.h"

namespace refit::python {

// A version that is being pushed, and its connection. Ctrl-C cancels the connection.
class WirePush {
 public:
  WirePush(std::shared_ptr<Publisher> publisher, std::unique_ptr<VersionPush> push, std::chrono::milliseconds timeout)
      : publisher_(std::move(publisher)), push_(std::move(push)), timeout_(timeout) {}
  ~WirePush();
  WirePush(const WirePush&) = delete;
  WirePush& operator=(const WirePush&) = delete;

  pybind11::dict Summary() const;
  // Whether the shard's bytes are not needed.
  bool Unneeded(size_t index) const { return push_->unneeded(index); }

  // Appends whole shards, in any order. Returns once gRPC has taken the last one. With `until_read`, it returns once no
  // memory that was lent to this push is read any more, so that the caller may change or free it. In that case the last
  // bytes are copied, so that the network stays busy during the wait.
  void Append(const LentShards& shards, bool until_read);
  pybind11::dict Commit();
  void Abort(const std::string& reason);

 private:
  // Checks the memory, and then sends it. Borrows it if there is an owner.
  absl::Status AppendPiece(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner,
                           MemoryProbe& probe);

  const std::shared_ptr<Publisher> publisher_;
  std::unique_ptr<VersionPush> push_;
  const std::chrono::milliseconds timeout_;
  Loans loans_;
};

}  // namespace refit::python
