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

// A version under way, and the connection that it needs. Ctrl-C cancels that.
class WirePush {
 public:
  WirePush(std::shared_ptr<Publisher> publisher, std::unique_ptr<VersionPush> push, std::chrono::milliseconds timeout)
      : publisher_(std::move(publisher)), push_(std::move(push)), timeout_(timeout) {}
  ~WirePush();
  WirePush(const WirePush&) = delete;
  WirePush& operator=(const WirePush&) = delete;

  pybind11::dict Summary() const;
  // Whether the shard's bytes need not be at hand.
  bool Unneeded(size_t index) const { return push_->unneeded(index); }

  // Whole shards, in any order. Returns once gRPC has taken the last one; with `until_read`, once nobody reads any
  // memory that was ever lent to this push: it may be changed, and freed. The last bytes are copied then, so that the
  // network has work while it is waited for.
  void Append(const LentShards& shards, bool until_read);
  pybind11::dict Commit();
  void Abort(const std::string& reason);

 private:
  // Looks at the memory, and then has it sent. Borrows it if there is an owner.
  absl::Status AppendPiece(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner,
                           MemoryProbe& probe);

  const std::shared_ptr<Publisher> publisher_;
  std::unique_ptr<VersionPush> push_;
  const std::chrono::milliseconds timeout_;
  Loans loans_;
};

}  // namespace refit::python
