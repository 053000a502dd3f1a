#include "server/access/peer_streams.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

std::string HostOf(absl::string_view peer) {
  const bool has_port = absl::StartsWith(peer, "ipv4:") || absl::StartsWith(peer, "ipv6:");
  return std::string(has_port ? peer.substr(0, peer.rfind(':')) : peer);
}

}  // namespace

absl::StatusOr<PeerStreams::Stream> PeerStreams::Enter(absl::string_view peer) {
  std::string host = HostOf(peer);
  absl::MutexLock lock(&mutex_);
  const auto open = open_.find(host);
  if (open != open_.end() && open->second >= max_per_peer_) {
    return LimitReached("--max-streams-per-peer",
                        absl::StrCat("peer ", host, " has ", max_per_peer_,
                                     " streams open, which is the limit (--max-streams-per-peer)"));
  }
  ++open_[host];
  return Stream(*this, std::move(host));
}

PeerStreams::Stream::~Stream() {
  if (table_ == nullptr) return;  // moved-from
  absl::MutexLock lock(&table_->mutex_);
  const auto open = table_->open_.find(host_);
  if (--open->second == 0) table_->open_.erase(open);
}

}  // namespace refit
