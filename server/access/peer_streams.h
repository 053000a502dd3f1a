// Counts each peer's open streams.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// Thread-safe. A peer is a host: its address without the port. All peers on a Unix socket count as one.
class PeerStreams {
 public:
  explicit PeerStreams(uint32_t max_per_peer) : max_per_peer_(max_per_peer) {}

  // One stream, until it is destroyed. The table must outlive it.
  class Stream {
   public:
    Stream(PeerStreams& table, std::string host) : table_(&table), host_(std::move(host)) {}
    ~Stream();
    Stream(Stream&& other) noexcept : table_(std::exchange(other.table_, nullptr)), host_(std::move(other.host_)) {}
    Stream& operator=(Stream&&) = delete;

   private:
    PeerStreams* table_;
    std::string host_;
  };

  // `peer` is the form that gRPC gives, such as "ipv4:10.0.0.7:51234". RESOURCE_EXHAUSTED if it has the most streams
  // allowed.
  absl::StatusOr<Stream> Enter(absl::string_view peer) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const uint32_t max_per_peer_;
  absl::Mutex mutex_;
  std::map<std::string, uint32_t> open_ ABSL_GUARDED_BY(mutex_);  // by host; a host with 0 streams is removed
};

}  // namespace refit
